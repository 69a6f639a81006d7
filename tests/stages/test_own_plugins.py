"""Plug-ins of the user's own through the stages: DVC depends on their files, and every process finds them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from experiment import CONFIG, begin, content, one_thread, source, student
from own import ENCODING, INVERT, LEVELS
from processes import output_of

from pipeline.cli import main
from pipeline.commands import dvc_file
from pipeline.experiment.run_folder import imported_code
from pipeline.store.cluster.distribution import _explained
from pipeline.store.cluster.held import Failed
from pipeline.store.format.arrays import Unit
from pipeline.store.format.manifest import Manifest
from pipeline.yaml_text import parse_yaml
from stages import cache_teacher

MODULES = {"own_invert.py": INVERT, "own_levels.py": LEVELS}
METHOD = '''
"""MSE of logits."""

from pipeline.config import Section
from pipeline.objectives import Needs, Objective
from pipeline.objectives.maps import Connector


class Options(Section):
    """power: of the difference."""

    power: int = 2


class Mse(Objective):
    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, options: Options, student, teacher, context, key) -> None:
        super().__init__()
        self.power = options.power

    def forward(self, student, teacher, batch, progress):
        return {"mse": (student.logits - teacher.logits).abs().pow(self.power).mean()}
'''
SOURCE = '''
"""Grey noise."""

import numpy as np

from pipeline.data import Item, SourceOptions


class Noise:
    class_names, splits, description = ("dark", "light"), ("train", "test"), "noise"

    def __init__(self, options: SourceOptions) -> None:
        pass

    def count(self, split):
        return 8

    def items(self, split):
        for number in range(8):
            yield Item(np.full((4, 4, 1), 10 * number, np.uint8), number % 2, f"{split}/{number}")
'''
KEPT = f"""{ENCODING}

def energy(maps: Tensor):
    return maps.square().mean((2, 3))
"""


def lines_of(stages: dict[str, Any], file: str) -> set[str]:
    """The stages that depend on a file."""
    return {name for name, stage in stages.items() if file in stage["deps"]}


def dvc_stages() -> dict[str, Any]:
    dvc_file.run(source(), Path("dvc.yaml"))
    found: dict[str, Any] = parse_yaml(Path("dvc.yaml").read_text(), "dvc.yaml")["stages"]
    assert all(len(set(stage["deps"])) == len(stage["deps"]) for stage in found.values())
    return found


def configured(folder: Path, *changes: tuple[str, str]) -> None:
    text = CONFIG
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    begin(folder, text)
    for name, code in {**MODULES, "own_mse.py": METHOD, "own_noise.py": SOURCE, "own_kept.py": KEPT}.items():
        (folder / name).write_text(code)


VIEWS = ("{name: horizontal-flip}]", "{name: 'own_invert:Invert'}]")
EVALUATED = ("objectives:\n", "evaluate: {operations: ['own_invert:Invert']}\nobjectives:\n")
OBJECTIVE = ("{name: kd, weight: 0.9, temperature: 4}", "{name: 'own_mse:Mse', weight: 0.9, power: 4}")
PACKED = ("source: {name: hdf5, path: raw.h5}", "source: 'own_noise:Noise'")
SIGNALS = (
    "  logits: {encoding: float32}",
    "  extras: ['own_kept:energy/block2']\n  logits: {encoding: {name: 'own_kept:Shifted', shift: 4}}",
)
FILTER = ("grid: 2,", "grid: 2, filter: 'own_kept:corner',")
TEACHER, CACHE, EVALUATION = {"train-teacher"}, {"cache-teacher"}, {"cache-evaluation"}
STUDENTS = {f"train-students-{name}" for name in ("hard", "kd", "lfcc")}


def test_a_stage_depends_on_the_files_that_decide_what_it_makes(own: Path) -> None:
    configured(
        own,
        VIEWS,
        ("objectives:\n", "evaluate: {operations: ['own_seen:Invert']}\nobjectives:\n"),
        OBJECTIVE,
        PACKED,
        (SIGNALS[0], "  logits: {encoding: 'own_kept:Shifted'}"),
    )
    (own / "own_seen.py").write_text(INVERT)
    stages = dvc_stages()
    expected = {
        "own_invert.py": TEACHER | CACHE | STUDENTS,
        "own_seen.py": TEACHER | EVALUATION | STUDENTS | {"evaluate"},
        "own_levels.py": TEACHER | CACHE | EVALUATION | STUDENTS | {"evaluate"},  # which both import
        "own_mse.py": {"train-students-kd"},
        "own_noise.py": {"prepare-data"},
        "own_kept.py": CACHE | STUDENTS,
    }
    assert {file: lines_of(stages, file) for file in expected} == expected


def test_in_a_checkout_a_method_brings_what_it_imports_of_decants_room(own: Path) -> None:
    configured(own, OBJECTIVE)
    Path("pipeline").mkdir()
    Path("pipeline/cli.py").touch()
    stages = dvc_stages()
    assert "train-students-kd" in lines_of(stages, "pipeline/objectives/maps.py")
    assert "train-students-hard" not in lines_of(stages, "pipeline/objectives/maps.py")
    assert not [each for stage in stages.values() for each in stage["deps"] if ":" in each]


@pytest.fixture
def mine(here: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the road whose views, evaluation and method are the user's own."""
    monkeypatch.chdir(here)
    configured(here, VIEWS, EVALUATED, OBJECTIVE, SIGNALS, FILTER)
    shutil.rmtree(here / "artifacts/caches")
    return here


def forget() -> None:
    """Forget the modules of the user's own, as another process knows nothing of them."""
    for name in ("own_kept", "own_invert", "own_mse"):
        sys.modules.pop(name, None)


def command(words: list[str]) -> None:
    main(words)


def test_a_cache_and_a_student_are_made_with_code_of_ones_own(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with one_thread():
        cache_teacher.run(source(), replace=False, wait=False)
        run = student("small", "kd")
        assert "own_mse:Mse/mse" in (run / "history.csv").read_text()
        capsys.readouterr()
        student("small", "kd", replace=True)
        assert "already there" in capsys.readouterr().out
        before = imported_code()
        (mine / "own_mse.py").write_text(METHOD + "# another\n")
        assert imported_code() != before
        student("small", "kd", replace=True)  # as DVC runs it after an edit
        assert "already there" not in capsys.readouterr().out
    signals = Manifest.read(mine / "artifacts/caches/tiny.zarr").identity.signals
    assert signals.filter == "own_kept:corner"
    assert signals.logits is not None
    assert signals.logits.plain()["encoding"] == {"name": "own_kept:Shifted", "shift": 4}
    assert set(signals.extras) == {"own_kept:energy/block2"}
    for words in (["verify"], ["inspect", "--views", "1"]):  # in processes that have imported nothing of it
        output_of(command, [*words, "--config", "tiny.yaml"], log=mine / "log")
    forget()
    cache = "artifacts/caches/tiny.zarr"  # by its path, without the configuration that names the code
    for words in (["verify", cache], ["inspect", cache]):
        refused = CliRunner().invoke(main, words)
        assert refused.exit_code in (1, 2)
        assert "add --code own_kept:Shifted to `pipeline inspect`" in refused.output
        wrong = CliRunner().invoke(main, [*words, "--code", "own_kept:Shiftd"])
        assert wrong.exit_code == 2
        assert "own_kept has no 'Shiftd'; did you mean 'Shifted'?" in wrong.output
        forget()
        shown = CliRunner().invoke(main, [*words, "--code", "own_kept:Shifted"])
        assert shown.exit_code == 0, shown.output
        forget()  # as evaluate does not import what made the training cache
    result = CliRunner().invoke(main, ["evaluate", "--config", "tiny.yaml"])
    assert result.exit_code == 0, result.output
    assert "note: the report will not describe artifacts/caches/tiny.zarr: the signals of the teacher" in result.stderr


@pytest.mark.long
def test_workers_import_it_from_the_working_directory(mine: Path) -> None:
    cache_teacher.run(source(), replace=False, wait=False)
    alone = content(mine / "artifacts/caches/tiny.zarr") | {"zarr.json": b""}
    shutil.rmtree(mine / "artifacts/caches")
    cache_teacher.run(source(), replace=False, wait=False, workers=2)
    assert content(mine / "artifacts/caches/tiny.zarr") | {"zarr.json": b""} == alone


def test_a_worker_that_cannot_import_it_says_what_to_do() -> None:
    failed = Failed("tcp://10.0.0.1:1", "ModuleNotFoundError: No module named 'own_invert'")
    text = str(_explained(failed, Unit(0, 0), "tcp://10.0.0.1:2", None))  # type: ignore[arg-type]
    for part in ("cannot import what this process imports", "No module named 'own_invert'", "modules of your own"):
        assert part in text


@pytest.mark.long
def test_a_loader_that_does_not_fork_imports_it_too(own: Path) -> None:
    from pipeline import make_views
    from pipeline.views import build_views

    views = build_views(make_views("own_invert:Invert"), (4, 4))
    loader = torch.utils.data.DataLoader(
        [0, 1], batch_size=None, num_workers=1, multiprocessing_context="spawn", collate_fn=Rendered(views)
    )
    assert list(loader) == [255, 254]


class Rendered:
    """Renders an image of one value, and returns the value."""

    def __init__(self, views: Any) -> None:
        self.views = views

    def __call__(self, value: int) -> int:
        image = torch.full((1, 1, 4, 4), value, dtype=torch.uint8)
        return int(self.views.apply(image, self.views.parameters(0, [0])).max())
