"""Any set of configurations lives side by side: what two of them make is made by one dvc.yaml alone."""

from __future__ import annotations

import functools
import itertools
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from experiment import begin

from pipeline.commands import check, dvc_file
from pipeline.errors import ConfigError
from pipeline.experiment.source import ConfigFile
from pipeline.yaml_text import parse_yaml, to_yaml

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # DVC's own
    from dvc.repo import Repo

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.long


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(begin(tmp_path))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Repo.init(no_scm=True).close()
    return tmp_path


def variant(name: str, **sections: object) -> None:
    """Another configuration, with a folder of runs of its own."""
    raw = parse_yaml(Path("tiny.yaml").read_text(), "tiny.yaml")
    Path(f"{name}.yaml").write_text(to_yaml({**raw, **sections}))


def write(name: str, config: str | None = None) -> dict[str, object]:
    """The stages in `experiments/<name>/dvc.yaml`."""
    file = write_file(name, config or f"{name}.yaml")
    stages: dict[str, object] = parse_yaml(file.read_text(), str(file))["stages"]
    return stages


def write_file(name: str, config: str) -> Path:
    """Write `experiments/<name>/dvc.yaml`."""
    file = Path(f"experiments/{name}/dvc.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    dvc_file.run(ConfigFile(Path(config)), file)
    return file


def outputs() -> list[str]:
    """Every output that DVC sees; it refuses to look if two stages have one."""
    with warnings.catch_warnings(), Repo() as repo:
        warnings.simplefilter("ignore")
        return [out.fs_path for stage in repo.index.stages for out in stage.outs]


def test_two_experiments_on_one_teacher(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variant("other", train={"epochs": 1, "batch_size": 16})
    first, second = write("tiny"), write("other")
    making = {"prepare-data", "train-teacher", "cache-teacher", "cache-evaluation"}
    assert making <= set(first)
    assert not making & set(second)
    assert capsys.readouterr().out.count("is left to experiments/tiny/dvc.yaml, which makes the same") == len(making)
    assert len(set(outputs())) == len(outputs())
    before = Path("experiments/tiny/dvc.yaml").read_bytes()
    write("tiny")  # again, beside one that relies on it
    assert Path("experiments/tiny/dvc.yaml").read_bytes() == before


def test_another_cache_of_the_same_teacher(project: Path) -> None:
    raw = parse_yaml(Path("tiny.yaml").read_text(), "tiny.yaml")
    variant("other", store={"path": "artifacts/caches/other.zarr"}, views={**raw["views"], "count": 3})
    write("tiny")
    assert "cache-teacher" in write("other", None)
    assert "train-teacher" in parse_yaml(Path("experiments/tiny/dvc.yaml").read_text(), "")["stages"]


def test_something_else_at_the_same_place_is_refused(project: Path) -> None:
    """By the keys that differ; DVC would run the one or the other, whichever came last."""
    variant("other", views={"count": 3, "operations": [{"name": "pad-crop", "padding": 1}]})
    write("tiny")
    with pytest.raises(ConfigError) as error:
        write("other")
    text = str(error.value)
    assert "views.count: experiments/tiny/dvc.yaml makes something else at artifacts/caches/tiny.zarr" in text
    assert "3 here, 2 there" in text
    assert "views.operations: experiments/tiny/dvc.yaml makes something else at artifacts/teacher" in text
    assert not Path("experiments/other/dvc.yaml").exists()


def test_one_folder_of_runs_for_two_experiments_is_refused(project: Path) -> None:
    variant("other", runs={"path": "artifacts/tiny"})
    write("tiny")
    with pytest.raises(ConfigError, match=r"runs\.path: experiments/tiny/dvc.yaml writes to artifacts/tiny/"):
        write("other")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"teacher": {"weights": "artifacts/teacher/b/teacher.safetensors"}, "store": {"path": "b.zarr"}},
            r"weights: artifacts/teacher/b, which train-teacher makes, and artifacts/teacher of .* lie one inside",
        ),
        (
            {"store": {"path": "artifacts/tiny/report/b.zarr"}},
            r"store.path: artifacts/tiny/report/b.zarr, which cache-teacher makes, and artifacts/tiny/report of",
        ),
        (
            {"teacher": {"weights": "artifacts/caches/t.safetensors"}, "store": {"path": "b.zarr"}},
            r"weights: artifacts/caches, which train-teacher makes, and artifacts/caches/tiny.zarr of",
        ),
    ],
)
def test_one_place_inside_another_experiments_is_refused(project: Path, sections: Any, message: str) -> None:
    raw = parse_yaml(Path("tiny.yaml").read_text(), "tiny.yaml")
    variant("other", **{name: {**raw[name], **section} for name, section in sections.items()})
    write("tiny")
    with pytest.raises(ConfigError, match=message):
        write("other")


def test_a_teacher_of_other_samples_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = parse_yaml(Path("tiny.yaml").read_text(), "tiny.yaml")
    variant("other", data={**raw["data"], "limit": 40}, store={"path": "artifacts/caches/other.zarr"})
    write("tiny")
    stages = write("other")
    assert "train-teacher" not in stages
    assert "cache-teacher" in stages
    assert "train-teacher is left to experiments/tiny/dvc.yaml, which makes the same, of other samples (data.limit" in (
        capsys.readouterr().out
    )


def test_all_shipped_configurations_and_two_of_a_users(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No output has two stages, by what the files say. (libyaml writes and reads them ten times as quickly.)"""
    dump = functools.partial(yaml.dump, Dumper=yaml.CSafeDumper, sort_keys=False)
    monkeypatch.setattr("pipeline.commands.dvc_file.to_yaml", dump)
    monkeypatch.setattr(ConfigFile, "read", functools.cache(ConfigFile.read))  # each once: none is changed
    written = write_all()
    made = [
        (file.parent / stage.get("wdir", ".") / next(iter(out))).resolve()
        for file in written
        for stage in yaml.load(file.read_text(), yaml.CSafeLoader)["stages"].values()
        for out in stage["outs"]
    ]
    assert len(written) == len(list(Path("configs").glob("*.yaml"))) + 2
    assert len(set(made)) == len(made) > 100


@pytest.mark.parametrize(
    ("names", "turn"),
    [
        pytest.param(["digits", "cifar100"], 1, id="two"),
        pytest.param(["*"], 0, id="all-forwards"),
        pytest.param(["*"], 1, id="all-backwards"),
    ],
)
def test_dvc_looks_at_shipped_configurations_and_two_of_a_users(project: Path, names: list[str], turn: int) -> None:
    """`dvc status` and `dvc repro --dry` look at all of them."""
    written = write_all(names, turn)
    made = outputs()
    assert len(set(made)) == len(made)
    with warnings.catch_warnings(), Repo() as repo:
        warnings.simplefilter("ignore")
        changed = repo.status()
        assert {stage.partition("dvc.yaml")[0] for stage in changed} == {f"{file.parent}/" for file in written}
        # `dvc repro --dry` of one experiment goes to whichever file makes what it needs. (Without --force DVC itself
        # fails where a dependency is not made yet: it wants to hash it.)
        needed = repo.reproduce("experiments/other/dvc.yaml:evaluate", dry=True, force=True)
        commands = [stage.cmd for stage in needed]
        for name in ("prepare-data", "train-teacher", "cache-teacher", "train-student", "evaluate"):
            assert any(name in command for command in commands), name


def write_all(names: Sequence[str] = ("*",), turn: int = 0) -> list[Path]:
    """Write the files of shipped configurations and of two of a user's, forwards or backwards."""
    shutil.copytree(ROOT / "configs", "configs")
    variant("other", train={"epochs": 1, "batch_size": 16})
    shipped = sorted({config for name in names for config in Path("configs").glob(f"{name}.yaml")})
    configs = [*shipped, Path("tiny.yaml"), Path("other.yaml")]
    return [write_file(config.stem, config.as_posix()) for config in configs[:: -1 if turn else 1]]


def test_a_file_that_no_longer_fits_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Repo.init(no_scm=True).close()
    write("tiny")
    check.run(ConfigFile(Path("tiny.yaml")), as_json=False)
    assert "no longer fits" not in capsys.readouterr().out
    text = Path("tiny.yaml").read_text()
    Path("tiny.yaml").write_text(text.replace("  lfcc: [", "  more: [{name: kd}]\n  lfcc: ["))
    check.run(ConfigFile(Path("tiny.yaml")), as_json=False)
    said = capsys.readouterr().out
    assert "warning: experiments/tiny/dvc.yaml no longer fits it" in said
    assert "pipeline dvc-file --config tiny.yaml --output experiments/tiny/dvc.yaml" in said


def test_two_projects_in_one_repository_share_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same names, each below a folder of its own from which its commands run."""
    for name in ("a", "b"):
        begin(Path(name))
        with monkeypatch.context() as patch:
            patch.chdir(name)
            dvc_file.run(ConfigFile(Path("tiny.yaml")), Path("dvc.yaml"))
    stages = [parse_yaml(Path(f"{name}/dvc.yaml").read_text(), name)["stages"] for name in ("a", "b")]
    assert stages[0] == stages[1]
    assert len(set(outputs())) == len(outputs())


def test_files_are_found_from_the_repositorys_root(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.dvc_file.tree import written_files

    for folder in ("a", "b/c", ".hidden", "artifacts/.x"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "dvc.yaml").write_text("stages: {}\n")
    assert sorted(map(str, written_files())) == ["a/dvc.yaml", "b/c/dvc.yaml"]
    monkeypatch.chdir("b")
    assert sorted(map(str, written_files())) == ["../a/dvc.yaml", "c/dvc.yaml"]
    assert list(itertools.islice(written_files(), 1))
