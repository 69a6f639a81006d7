"""Code of the user's own that fails in the middle of a run: said by name and place, and what was finished is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from experiment import begin, one_thread
from own import INVERT
from test_own_plugins import CONFIG, METHOD, OBJECTIVE, SOURCE, VIEWS

from pipeline import own_code
from pipeline.cli import main
from pipeline.errors import ConfigError, DataError, ModelError, OwnCodeError, PipelineError, Problem, during
from pipeline.models import build_network
from pipeline.training import batches, loading
from pipeline.training.checkpoint import CHECKPOINT_FILE

INVERTING = "        return HIGHEST - images if self.amount else images.clone()\n"


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with one_thread():
        yield


def configured(folder: Path, *changes: tuple[str, str]) -> None:
    text = CONFIG
    for old, new in changes:
        text = text.replace(old, new, 1)
    begin(folder, text)


def line_of(file: str, part: str) -> int:
    return next(i for i, line in enumerate(Path(file).read_text().splitlines(), 1) if part in line)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--config", "tiny.yaml"])


def test_an_objective_that_fails_in_the_second_epoch_goes_on_after_the_first(
    here: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    configured(here, OBJECTIVE)
    broken = METHOD.replace(
        "        return", "        if batch.step >= 4:\n            self.power['x']\n        return"
    )
    Path("own_mse.py").write_text(broken)
    command = ("train-student", "--student", "small", "--objectives", "kd", "--seed", "7")
    result = run(*command)
    assert result.exit_code == 1
    assert "error: code of your own failed: TypeError: 'int' object is not subscriptable" in result.stderr
    place = f"where: own_mse.py, line {line_of('own_mse.py', 'power[')}, objective own_mse:Mse, step 4 of "
    assert place in result.stderr
    assert "what was finished is kept" in result.stderr
    assert "defect of Decant" not in result.stderr
    assert len(list(Path("artifacts").glob(f"**/{CHECKPOINT_FILE}"))) == 1  # of the first epoch
    Path("own_mse.py").write_text(METHOD)
    own_code.sys.modules.pop("own_mse")
    again = run(*command)
    assert again.exit_code == 0, again.output
    (history,) = (path for path in Path("artifacts").glob("**/history.csv") if "7" in path.parent.name)
    assert len(history.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("[][2]", "code of your own failed: IndexError: list index out of range"),
        ("raise SystemExit(3)", "code of your own ended the program: SystemExit: 3"),
        ("open('nowhere')", "code of your own failed: FileNotFoundError"),
    ],
)
def test_an_operation_that_fails_is_named_with_the_view(
    here: Path, own: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    monkeypatch.chdir(here)
    configured(here, VIEWS, ("store: {path: artifacts/caches/tiny", "store: {path: artifacts/caches/own"))
    failing = INVERT.replace(INVERTING, f"        {code}\n")
    Path("own_invert.py").write_text(failing)
    Path("own_levels.py").write_text("HIGHEST = 255\n")
    result = run("cache-teacher", "--part", "training")
    assert result.exit_code == 1
    assert said in result.stderr
    place = (
        f"where: own_invert.py, line {line_of('own_invert.py', code)}, operation own_invert:Invert, view 0 of samples "
    )
    assert place in result.stderr


def test_a_source_that_fails_is_named_with_the_item(own: Path) -> None:
    configured(own, ("source: {name: hdf5, path: raw.h5}", "source: 'own_noise:Noise'"))
    (own / "own_noise.py").write_text(
        SOURCE.replace("            yield", "            open(f'{number}/{number - 3}')\n            yield")
    )
    result = run("prepare-data")
    assert result.exit_code == 1
    assert "error: code of your own failed: FileNotFoundError" in result.stderr
    assert ", item 0 of split train" in result.stderr


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str) -> None:
    """Write a module as an installed package has it: without an entry point."""
    (folder / "site-packages").mkdir()
    (folder / f"site-packages/{module}.py").write_text(code)
    monkeypatch.syspath_prepend(folder / "site-packages")


def test_a_source_of_an_installed_package_is_named_too(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(own, ("source: {name: hdf5, path: raw.h5}", "source: 'own_noise:Noise'"))
    failing = SOURCE.replace("            yield", "            open(f'{number}/{number - 3}')\n            yield")
    installed(own, monkeypatch, "own_noise", failing)
    result = run("prepare-data")
    assert result.exit_code == 1
    assert "error: code of your own failed: FileNotFoundError" in result.stderr
    line = line_of("site-packages/own_noise.py", "open(")
    place = f"site-packages/own_noise.py, line {line}, item 0 of split train, source own_noise:Noise\n"
    assert place in result.stderr


NETWORK = """
from torch import nn

class Net(nn.Sequential):
    broken = False
    def forward(self, x):
        if self.broken:
            raise KeyError("width")
        return super().forward(x)

def net(num_classes):
    return Net(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

def unfinished():
    return {}["depth"]
"""


def test_a_network_of_an_installed_package_is_named_too(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(own, monkeypatch, "own_net", NETWORK)
    network = build_network("own_net:net", 3, input_size=8, seed=0, mean=(0.5,), std=(0.5,))
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    network(images)
    network.model.broken = True  # type: ignore[assignment]
    for use in (network, lambda images: network.map_of(images, "block1")):
        with pytest.raises(KeyError) as error:
            use(images)
        failure = own_code.failure_of(error.value)
        line = line_of("site-packages/own_net.py", "raise")
        assert str(failure).startswith("code of your own failed: KeyError: 'width'\n  where: ")
        assert f"site-packages/own_net.py, line {line}, network own_net:net\n" in str(failure)
    with pytest.raises(ModelError, match=rf"own_net.py, line {line_of('site-packages/own_net.py', 'depth')}\)"):
        build_network("own_net:unfinished", 3)


def test_a_factory_that_ends_the_program_is_named(own: Path) -> None:
    (own / "own_invert.py").write_text(
        INVERT.replace("        self.amount = options.amount\n", "        raise SystemExit(4)\n")
    )
    result = CliRunner().invoke(main, ["contract", "own_invert:Invert"])
    assert result.exit_code == 2
    assert "own_invert:Invert: cannot be made: SystemExit: 4 (own_invert.py, line " in result.stderr


def test_notes_are_told_of_a_defect_too(monkeypatch: pytest.MonkeyPatch, own: Path) -> None:
    def check(*arguments: object, **options: object) -> None:
        with during(lambda: "view 3 of samples a, b"):
            raise KeyError("x")

    monkeypatch.setattr("pipeline.commands.check.run", check)
    configured(own)
    result = run("check")
    assert "where: view 3 of samples a, b\n  do: this is a defect of Decant" in result.stderr


class Failing(batches.Steps):
    def __init__(self) -> None:
        pass

    def _step(self, requested: object) -> batches.Step:
        return own_code.imported("own_step:fail")()  # type: ignore[no-any-return]


def test_of_a_worker_process_comes_what_it_said(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "own_step.py").write_text("def fail():\n    exit(5)\n")
    with pytest.raises(SystemExit):
        Failing()[0]
    monkeypatch.setattr(batches, "get_worker_info", lambda: object())
    with pytest.raises(OwnCodeError, match="ended the program: SystemExit: 5") as error:
        Failing()[0]
    assert "\n  where: own_step.py, line 2\n" in str(error.value)


@pytest.mark.parametrize(
    "raised",
    [DataError("an image is damaged", where="a.png"), ConfigError([Problem("views.count", "is zero")], "a.yaml")],
)
def test_the_trace_of_a_worker_process_is_left_out(raised: PipelineError) -> None:
    def loaded() -> Iterator[batches.Step]:
        try:
            raise raised
        except PipelineError:
            torch._utils.ExceptionWrapper(where="in DataLoader worker process 0").reraise()
        yield  # type: ignore[misc]

    with pytest.raises(type(raised)) as error:
        next(loading._unwrapped(loaded()))
    assert str(error.value) == str(raised)
