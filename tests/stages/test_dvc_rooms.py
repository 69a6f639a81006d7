"""What an edit of the code costs: the stages that DVC runs again, for every file of Decant."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from experiment import source

from pipeline.commands import dvc_file
from pipeline.yaml_text import parse_yaml
from stages import evaluate, report

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # DVC's own
    from dvc.repo import Repo

ROOT = Path(__file__).resolve().parents[2]

DATA, TEACHER, REPORT = {"prepare-data"}, {"train-teacher"}, {"report"}
CACHES = {"cache-teacher", "cache-evaluation"}
STUDENTS = {f"train-students-{name}" for name in ("hard", "hard-cached", "kd", "lfcc-kd")}
EVALUATE = {"evaluate"}
CACHED = STUDENTS - {"train-students-hard"}
"""Students that learn from a cache; `hard` learns from fresh views."""

DRAWN = TEACHER | {"cache-teacher"} | STUDENTS
KEPT = {"cache-teacher"} | CACHED
READING = TEACHER | CACHES | STUDENTS | EVALUATE
"""What opens data, networks and caches."""

EVERYTHING = DATA | READING | REPORT
TRAINING = TEACHER | STUDENTS

EDITED: dict[str, set[str]] = {
    # What only looks, prints or plans.
    "pipeline/cli.py": set(),
    "pipeline/commands": set(),
    "pipeline/dvc_file": set(),
    "pipeline/inspection": set(),
    "pipeline/inspection/__init__.py": EVALUATE,  # the report shows views of the cache, which `evaluate` renders
    "pipeline/inspection/strips.py": EVALUATE,
    "pipeline/inspection/views.py": EVALUATE,
    "pipeline/planning": set(),
    "pipeline/progress.py": set(),
    # Where a cache lies and who computes it: the bytes are the same.
    "pipeline/store/cluster": set(),
    "pipeline/store/remote": set(),
    # What is made of figures; `evaluate` writes results, and only over its own.
    "pipeline/reporting": REPORT,
    "pipeline/reporting/__init__.py": EVALUATE | REPORT,
    "pipeline/reporting/details.py": EVALUATE | REPORT,
    "pipeline/reporting/ownership.py": EVALUATE | REPORT,
    "pipeline/reporting/results.py": EVALUATE | REPORT,
    "pipeline/reporting/summary.py": EVALUATE | REPORT,
    # A method.
    "pipeline/objectives/methods": set(),  # that no student of the demo uses
    "pipeline/objectives/methods/__init__.py": TRAINING,
    "pipeline/objectives/methods/hard_label.py": TRAINING,
    "pipeline/objectives/methods/kd.py": {"train-students-kd", "train-students-lfcc-kd"},
    "pipeline/objectives/methods/lfcc.py": {"train-students-lfcc-kd"},
    # Plug-ins of the other kinds.
    "pipeline/data/sources": set(),
    "pipeline/data/sources/__init__.py": DATA,
    "pipeline/data/sources/digits.py": DATA,
    "pipeline/views/operations": set(),
    "pipeline/views/operations/__init__.py": DRAWN | EVALUATE,
    "pipeline/views/operations/pad_crop.py": DRAWN | EVALUATE,
    "pipeline/signals/extras": set(),
    "pipeline/signals/filters": set(),
    "pipeline/signals/filters/__init__.py": KEPT,
    "pipeline/signals/filters/_separable.py": KEPT,
    "pipeline/signals/filters/mean.py": KEPT,
    "pipeline/store/encodings": set(),
    "pipeline/store/encodings/__init__.py": READING,
    "pipeline/store/encodings/_choice.py": READING,
    "pipeline/store/encodings/_contract.py": READING,
    "pipeline/store/encodings/_half.py": KEPT | EVALUATE,
    "pipeline/store/encodings/_one_array.py": CACHES | CACHED | EVALUATE,
    "pipeline/store/encodings/_rows.py": CACHES | CACHED | EVALUATE,
    "pipeline/store/encodings/float16.py": KEPT | EVALUATE,
    "pipeline/store/encodings/float32.py": {"cache-evaluation"} | CACHED | EVALUATE,
    # What makes a cache.
    "pipeline/store/making": CACHES,
    # What all that reads or trains stands on.
    "pipeline/data": EVERYTHING - REPORT,
    "pipeline/models": READING,
    "pipeline/publishing": READING,
    "pipeline/signals": READING,
    "pipeline/store/format": READING,
    "pipeline/store/reader.py": READING,
    "pipeline/training": TRAINING,
    "pipeline/views": READING,
    "pipeline/config.py": EVERYTHING,
    "pipeline/errors.py": EVERYTHING,
    # A stage.
    "stages/prepare_data.py": DATA,
    "stages/train_teacher.py": TEACHER,
    "stages/cache_teacher.py": CACHES,
    "stages/train_student.py": STUDENTS,
    "stages/evaluate.py": EVALUATE,
    "stages/report.py": REPORT,
}
"""The stages of the demo that DVC names after an edit of a file, or of any file of a folder. Of two lines, the longer
one holds. A file without a line is one that stages name by itself, or costs nothing."""


def covers(dependency: str, file: str) -> bool:
    return file == dependency or file.startswith(f"{dependency}/")


def named(stages: dict[str, Any], file: str) -> set[str]:
    """The stages that depend on a file, in what a dvc.yaml says."""
    return {name for name, stage in stages.items() if any(covers(each, file) for each in stage["deps"])}


def after(stages: dict[str, Any], first: Iterable[str]) -> set[str]:
    """Those stages, and all that depend on what they write, directly or not."""
    found: set[str] = set()
    waiting = list(first)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        written = [path.split("/${")[0] for entry in stages[name].get("outs", ()) for path in entry]
        waiting += [
            other
            for other, stage in stages.items()
            if any(covers(out, each) or covers(each, out) for out in written for each in stage["deps"])
        ]
    return found


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    """The stages of the demo."""
    stages: dict[str, Any] = parse_yaml((ROOT / "dvc.yaml").read_text(), "dvc.yaml")["stages"]
    return stages


def files() -> list[str]:
    found = [*ROOT.glob("pipeline/**/*"), *ROOT.glob("stages/**/*")]
    return sorted(p.relative_to(ROOT).as_posix() for p in found if p.is_file() and "__pycache__" not in p.parts)


def test_an_edit_of_a_file_costs_what_the_table_says(digits: dict[str, Any]) -> None:
    by_itself = {each for stage in digits.values() for each in stage["deps"]}
    wrong, lines = {}, set()
    for file in files():
        line = max((line for line in EDITED if covers(line, file)), key=len, default=None)
        found = named(digits, file)
        if line is not None:
            lines.add(line)
        elif file in by_itself:
            continue
        if found != EDITED.get(line or "", set()):
            wrong[file] = sorted(found)
    assert wrong == {}
    assert set(EDITED) == lines


def test_what_follows_from_an_edit(digits: dict[str, Any]) -> None:
    def rerun(file: str) -> set[str]:
        return after(digits, named(digits, file))

    assert rerun("pipeline/inspection/report.py") == rerun("pipeline/objectives/methods/crd.py") == set()
    assert rerun("pipeline/reporting/plots.py") == {"report"}
    assert rerun("pipeline/objectives/methods/lfcc.py") == {"train-students-lfcc-kd", "evaluate", "report"}
    assert rerun("pipeline/store/making/caching.py") == CACHES | CACHED | EVALUATE | REPORT
    assert rerun("stages/train_teacher.py") == EVERYTHING - DATA - STUDENTS | CACHED
    assert rerun("pipeline/views/operations/rotate.py") == rerun("pipeline/store/encodings/int8.py") == set()


@pytest.mark.long
def test_dvc_status_after_an_edit_in_each_room(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC itself, in a copy of the code with a finished experiment, whose set `lfcc` is without KD."""
    evaluate.run(source())
    report.run(source(), write=True, table=False)
    for room in ("pipeline", "stages"):
        shutil.copytree(ROOT / room, room, ignore=shutil.ignore_patterns("__pycache__"))
    dvc_file.run(source(), Path("dvc.yaml"))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(there / "site"))
    students = {f"train-students-{name}" for name in ("hard", "kd", "lfcc")}
    costs = {
        "pipeline/commands/check.py": set(),
        "pipeline/dvc_file/stages.py": set(),
        "pipeline/inspection/report.py": set(),
        "pipeline/planning/estimate.py": set(),
        "pipeline/store/cluster/distribution.py": set(),
        "pipeline/store/remote/object_storage.py": set(),
        "pipeline/reporting/plots.py": REPORT,
        "pipeline/objectives/methods/crd.py": set(),
        "pipeline/objectives/methods/kd.py": {"train-students-kd"},
        "pipeline/objectives/methods/lfcc.py": {"train-students-lfcc"},
        "pipeline/store/making/caching.py": CACHES,
        "pipeline/views/operations/pad_crop.py": TEACHER | {"cache-teacher"} | students | EVALUATE,
        "pipeline/views/operations/rotate.py": set(),
        "pipeline/views/chain.py": READING - STUDENTS | students,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Repo.init(no_scm=True).close()
        with Repo() as repo:
            repo.commit(force=True)

        def status() -> set[str]:
            with Repo() as repo:
                return {name.partition("@")[0] for name in repo.status()}

        assert status() == set()
        for file, stages in costs.items():
            text = Path(file).read_bytes()
            Path(file).write_bytes(text + b"# edited\n")
            assert status() == stages, file
            Path(file).write_bytes(text)
        assert status() == set()
