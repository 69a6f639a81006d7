"""What Decant did not publish survives: where a stage would write, beside what it wrote, and under `dvc repro`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from experiment import begin, content, images, source, student

from pipeline.commands import check, dvc_file
from pipeline.errors import ConfigError, PipelineError
from stages import cache_teacher, evaluate, prepare_data, train_teacher

TEACHER = Path("artifacts/teacher")
CACHE = Path("artifacts/caches/tiny.zarr")
STUDENT = Path("artifacts/tiny/students/small/kd/seed-0")
FOREIGN = b"written by somebody else\n"


def by_hand(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(FOREIGN)


def prepare() -> None:
    prepare_data.run(source(), replace=True)


def teach() -> None:
    train_teacher.run(source("teacher_training.epochs=3"), replace=True, wait=False)


def cache() -> None:
    cache_teacher.run(source("views.seed=5"), replace=True, wait=False)


def train() -> None:
    student("small", "kd", "train.epochs=3", replace=True)


BESIDE: dict[str, tuple[Callable[[], None], Path]] = {
    "notes in the teacher's folder": (teach, TEACHER / "notes.txt"),
    "other weights in the teacher's folder": (teach, TEACHER / "older.safetensors"),
    "a student's weights in the teacher's folder": (teach, TEACHER / "student.safetensors"),
    "notes in a cache": (cache, CACHE / "notes.txt"),
    "an array of one's own in a cache": (cache, CACHE / "mine/c/0"),
    "a picture in a student's folder": (train, STUDENT / "curve/plot.png"),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_files_beside_what_decant_published(there: Path, kind: str) -> None:
    run, foreign = BESIDE[kind]
    by_hand(foreign)
    before = content(Path("artifacts"))
    with pytest.raises(PipelineError, match=f"(?s)so nothing is replaced.*{foreign.name}"):
        run()
    assert content(Path("artifacts")) == before
    foreign.unlink()
    run()


@pytest.mark.parametrize(
    ("run", "place"), [(teach, TEACHER), (cache, CACHE), (train, STUDENT)], ids=["teacher", "cache", "student"]
)
def test_a_folder_that_decant_did_not_publish(there: Path, run: Callable[[], None], place: Path) -> None:
    shutil.rmtree(place)
    by_hand(place / "weights.pth")
    with pytest.raises(PipelineError, match="not something that Decant published"):
        run()
    assert content(place) == {"weights.pth": FOREIGN}


@pytest.mark.parametrize("text", [True, False])
def test_a_data_set_made_by_hand(here: Path, text: bool) -> None:
    if text:
        Path("data.h5").write_bytes(FOREIGN)
    else:
        with h5py.File("data.h5", "w") as file:
            file["train/images"], file["train/labels"] = images(8, 0)
            file["train/ids"] = [str(i) for i in range(8)]
    before = Path("data.h5").read_bytes()
    with pytest.raises(PipelineError, match="not packed by `pipeline prepare-data`, so it is not replaced"):
        prepare()
    with pytest.raises(PipelineError, match=r"(?s)data\.path: the file there was not packed.*data\.source: null"):
        dvc_file.run(source(), Path("dvc.yaml"))
    assert Path("data.h5").read_bytes() == before
    assert not Path("dvc.yaml").exists()


def test_an_evaluation_of_somebody_else(there: Path) -> None:
    by_hand(Path("artifacts/tiny/evaluation.json"))
    by_hand(Path("artifacts/tiny/notes.txt"))
    with pytest.raises(PipelineError, match="`pipeline evaluate` did not write"):
        evaluate.run(source())
    assert Path("artifacts/tiny/evaluation.json").read_bytes() == FOREIGN
    Path("artifacts/tiny/evaluation.json").unlink()
    evaluate.run(source())
    evaluate.run(source())  # its own is replaced
    Path("artifacts/tiny/evaluation.json").unlink()
    by_hand(Path("artifacts/tiny/metrics.json"))
    with pytest.raises(PipelineError, match="in the way of the accuracies for DVC"):
        evaluate.run(source())
    assert Path("artifacts/tiny/metrics.json").read_bytes() == FOREIGN
    assert Path("artifacts/tiny/notes.txt").read_bytes() == FOREIGN


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("evaluation.json", r"runs\.path: a file is in the way that `pipeline evaluate` did not write"),
        ("metrics.json", r"runs\.path: a file is in the way of the accuracies"),
        ("details.json", r"runs\.path: a file is in the way of what the report reads"),
        ("report/summary.json", r"runs\.path: files that `pipeline report` did not write are in the way"),
    ],
)
def test_a_file_in_the_way_of_the_last_stages_is_told_before_the_first(here: Path, name: str, message: str) -> None:
    by_hand(Path("artifacts/tiny") / name)
    with pytest.raises(ConfigError, match=message):
        check.run(source(), as_json=False)
    with pytest.raises(ConfigError, match=message):
        dvc_file.run(source(), Path("dvc.yaml"))
    assert (Path("artifacts/tiny") / name).read_bytes() == FOREIGN


def configured(weights: str) -> None:
    """The configuration with other weights, written: a dvc.yaml runs what is written."""
    text = Path("tiny.yaml").read_text()
    Path("tiny.yaml").write_text(text.replace("artifacts/teacher/teacher.safetensors", weights))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            "weights/my.pth",
            "(?s)weights: weights holds what Decant did not publish.*big.pth.*folder of its own",
        ),
        ("teacher.safetensors", "(?s)teacher.weights: its folder is the working directory.*folder of its own"),
        ("../teacher.safetensors", "teacher.weights: its folder is the working directory, or contains it"),
    ],
)
def test_weights_in_a_folder_of_other_things(here: Path, weights: str, message: str) -> None:
    """Before anything runs, by every command that would come upon it."""
    by_hand(Path("weights/big.pth"))
    configured(weights)
    with pytest.raises(PipelineError, match=message):
        check.run(source(), as_json=False)
    with pytest.raises(PipelineError, match=message):
        dvc_file.run(source(), Path("dvc.yaml"))
    if weights.startswith("weights"):
        with pytest.raises(PipelineError, match="not something that Decant published"):
            train_teacher.run(source(), replace=True, wait=False)
    assert Path("weights/big.pth").read_bytes() == FOREIGN


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.path=artifacts/teacher/data.h5",
            r"artifacts/teacher would contain .*data.h5 \(data.path",
        ),
        (
            "teacher.weights=artifacts/new.safetensors",
            r"weights: artifacts would contain artifacts/caches/tiny.zarr",
        ),
        ("runs.path=artifacts/teacher", "teacher.weights: artifacts/teacher would contain artifacts/teacher/students"),
        ("store.path=artifacts/teacher/a.zarr", r"would contain artifacts/teacher/a.zarr \(store.path"),
    ],
)
def test_one_place_inside_another_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    """DVC would refuse to do anything at all in the repository."""
    monkeypatch.chdir(begin(tmp_path))
    with pytest.raises(ConfigError, match=message):
        check.run(source(override), as_json=False)


def test_what_file_managers_leave_behind_is_no_obstacle(here: Path) -> None:
    shutil.rmtree(TEACHER)
    by_hand(TEACHER / ".DS_Store")
    train_teacher.run(source(), replace=False, wait=False)
    assert (TEACHER / "teacher.safetensors").exists()


def test_a_run_is_made_again_only_by_other_code(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `dvc repro` asks for when code has changed, of which the fingerprint knows nothing."""
    monkeypatch.setattr("pipeline.experiment.run_folder.imported_code", lambda: "sha256:one")
    student("small", "kd", replace=True)
    before = content(STUDENT)
    capsys.readouterr()
    student("small", "kd", replace=True)
    assert "already there" in capsys.readouterr().out
    assert content(STUDENT) == before
    monkeypatch.setattr("pipeline.experiment.run_folder.imported_code", lambda: "sha256:other")
    student("small", "kd")
    assert "already there" in capsys.readouterr().out
    student("small", "kd", replace=True)
    assert "already there" not in capsys.readouterr().out
    after = content(STUDENT)
    assert b"sha256:other" in after["metrics.json"]
    assert after["student.safetensors"] == before["student.safetensors"]


@pytest.mark.long
def test_every_foreign_byte_is_there_after_dvc_repro(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One kind of output after the other holds something foreign while the whole experiment is to run anew."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"

    def dvc(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dvc", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    configuration = Path("tiny.yaml").read_text()
    small = configuration.replace("  vit:", "  # vit:")  # one student, two sets: time
    small = "\n".join(line for line in small.splitlines() if not line.startswith(("    ", "  # vit", "  lfcc")))
    Path("tiny.yaml").write_text(small + "\n")
    dvc_file.run(source(), Path("dvc.yaml"))
    assert dvc("init", "--no-scm").returncode == 0
    shutil.copytree("artifacts/caches", "by-hand")  # a cache that is the right one: it is used, and not made again
    stamp = (CACHE / "logits/c/0/0/0").stat().st_ino
    first = dvc("repro")
    assert first.returncode == 0, first.stdout + first.stderr
    assert content(Path("by-hand/tiny.zarr")) == content(CACHE)
    assert (CACHE / "logits/c/0/0/0").stat().st_ino == stamp
    foreign = {
        "teacher": TEACHER / "notes.txt",
        "cache": CACHE / "notes.txt",
        "student": STUDENT / "notes.txt",
        "runs": Path("artifacts/tiny/notes.txt"),
        "report": Path("artifacts/tiny/report/notes.txt"),
    }
    for path in foreign.values():
        by_hand(path)
    Path("tiny.yaml").write_text(
        Path("tiny.yaml").read_text().replace("epochs: 2", "epochs: 1").replace("count: 2", "count: 3")
    )
    dvc("repro", "--keep-going")
    for kind, path in foreign.items():
        assert path.read_bytes() == FOREIGN, kind
    Path("data.h5").unlink()
    by_hand(Path("data.h5"))
    assert dvc("repro", "--force", "prepare-data").returncode != 0
    assert Path("data.h5").read_bytes() == FOREIGN
