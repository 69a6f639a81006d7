from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.config import Section, bind, resolved
from pipeline.data import DataConfig, HoldoutConfig
from pipeline.errors import ConfigError
from pipeline.yaml_text import parse_yaml


class Whole(Section):
    data: DataConfig


def read(text: str) -> DataConfig:
    return bind(parse_yaml(f"data: {text}", "test"), Whole, ("data",)).data


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        read(text)
    return str(error.value)


def test_defaults_use_the_whole_training_split():
    config = read("{path: x.h5}")
    assert (config.split, config.source, config.holdout, config.limit) == ("train", None, None, None)
    assert config.unreadable == "refuse"
    assert read("{path: x.h5, holdout: {count: 5}}").holdout == HoldoutConfig(count=5, seed=0)


@pytest.mark.parametrize(
    "source",
    [
        "{name: digits}",
        "{name: image-folder, path: photos}",
        "{name: torchvision, dataset: CIFAR100, root: downloads, download: false, options: {a: 1}}",
        "{name: hdf5, path: y.h5, images: data}",
    ],
)
def test_a_resolved_configuration_reads_back_as_itself(source):
    config = read(f"{{path: x.h5, source: {source}}}")
    again = DataConfig.model_validate(resolved(config))
    assert again == config
    given = parse_yaml(source, "test")
    assert {key: resolved(config)["source"][key] for key in given} == given


def test_options_can_be_given_as_objects():
    from pipeline.data.sources.digits import Options

    assert DataConfig(path="x.h5", source=Options()).source == Options()


def test_an_unknown_source_names_the_nearest():
    message = refused("{path: x.h5, source: {name: torchvison}}")
    assert "data.source.name: unknown name 'torchvison'" in message
    assert "expected: one of csv-labels, digits, file-names, hdf5, image-folder, split-files, torchvision" in message
    assert "did you mean 'torchvision'?" in message


def test_a_source_without_name_says_so():
    message = refused("{path: x.h5, source: {dataset: CIFAR10}}")
    assert "data.source.name: the name is missing" in message
    assert "image-folder" in message


def test_an_unknown_source_option_names_the_nearest():
    message = refused("{path: x.h5, source: {name: torchvision, dataset: MNIST, downlod: false}}")
    assert "data.source.downlod: unknown key" in message
    assert "did you mean 'download'?" in message


def test_every_problem_is_reported_at_once():
    message = refused("{path: x.h5, source: {name: hdf5}, holdout: {count: 0, seed: -1}, limit: 0, unreadable: maybe}")
    assert "5 problems" in message
    for key in ("source.path", "holdout.count", "holdout.seed", "limit.count", "unreadable"):
        assert f"data.{key}:" in message


def test_a_source_without_options_may_be_named_alone():
    assert read("{path: x.h5, source: digits}") == read("{path: x.h5, source: {name: digits}}")
    assert "data.source.path: Field required" in refused("{path: x.h5, source: hdf5}")


def test_the_source_may_not_be_the_target():
    assert "would be overwritten" in refused("{path: x.h5, source: {name: hdf5, path: x.h5}}")


def test_only_the_named_source_is_imported():
    code = (
        "import sys\n"
        "from pipeline.data import DataConfig\n"
        "sys.modules['torchvision'] = sys.modules['sklearn'] = None  # importing them would raise\n"
        "for name, more in (('digits', {}), ('torchvision', {'dataset': 'MNIST'})):\n"
        "    DataConfig.model_validate({'path': 'x.h5', 'source': {'name': name, **more}})\n"
        "    print(sorted(m.rpartition('.')[2] for m in sys.modules if m.startswith('pipeline.data.sources.')))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.splitlines() == ["['digits']", "['digits', 'torchvision']"]
