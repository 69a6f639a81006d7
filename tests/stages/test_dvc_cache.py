"""A teacher cache in DVC's hands: linked, read-only, pushed, pulled and replaced, and never written to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from experiment import CONFIG, begin, content, source, student
from intact import verify_files
from without_privileges import COMMAND, without_privileges

from pipeline.commands import dvc_file
from pipeline.store.reader import TeacherCache
from pipeline.yaml_text import parse_yaml, to_yaml
from stages import cache_teacher

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # DVC's own
    from dvc.repo import Repo

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path("artifacts/caches/tiny.zarr")
CHUNK = CACHE / "logits/c/0/0/0"

pytestmark = pytest.mark.long
MAKING = ("prepare-data", "train-teacher", "cache-teacher", "cache-evaluation")
STUDENTS = ("train-students-hard", "train-students-kd")
OBJECTS = Path(".dvc/cache/files")


class Project:
    """The working directory as a DVC project: `dvc` without a process for every command."""

    def __init__(self, link: str) -> None:
        dvc_file.run(source(), Path("dvc.yaml"))
        Repo.init(no_scm=True).close()
        Path(".dvc/config").write_text(
            f"[core]\n    remote = there\n    no_scm = true\n[cache]\n    type = {link}\n"
            "['remote \"there\"']\n    url = ../../remote\n"
        )

    def __call__(self, command: str, targets: Sequence[str] = (), **options: Any) -> Any:
        with warnings.catch_warnings(), Repo() as repo:
            warnings.simplefilter("ignore")
            return getattr(repo, command)(targets=list(targets), **options)

    def take(self, *stages: str) -> None:
        """Hand over what stages have made, as `dvc repro` does once it has run them."""
        with warnings.catch_warnings(), Repo() as repo:
            warnings.simplefilter("ignore")
            for stage in stages:
                repo.commit(stage, force=True)


@pytest.fixture(autouse=True)
def _dvc_stays_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))


@pytest.fixture(params=["hardlink", "copy"])
def tracked(here: Path, request: pytest.FixtureRequest) -> Project:
    """The tiny experiment up to its caches, which the stage made and DVC tracks."""
    project = Project(request.param)
    project.take(*MAKING)
    return project


def state(folder: Path) -> dict[str, tuple[int, ...]]:
    """Of every file and directory: which it is, its mode, size, and when it was last changed in any way."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        is_ = path.lstat()
        found[str(path)] = (is_.st_ino, is_.st_mode, is_.st_size, is_.st_mtime_ns, is_.st_ctime_ns)
    return found


def objects() -> dict[str, bytes]:
    """What DVC's own cache holds."""
    return content(OBJECTS)


def test_a_cache_goes_to_a_remote_and_back_and_a_student_reads_it_and_nobody_writes_it(tracked: Project):
    made, linked = content(CACHE), CHUNK.stat().st_nlink
    tracked("push")
    shutil.rmtree("artifacts")
    Path("data.h5").unlink()
    shutil.rmtree(".dvc/cache")
    tracked("pull", MAKING)
    assert content(CACHE) == made
    assert CHUNK.stat().st_nlink == linked
    assert tracked("status", MAKING) == {}

    for file in CACHE.rglob("*"):  # as with links, so that copies are tried read-only, too
        file.chmod(0o555 if file.is_dir() else 0o444)
    before, stored = state(CACHE), objects()
    with without_privileges():
        with pytest.raises(PermissionError):
            CHUNK.open("r+b")
        verify_files(CACHE)
        assert student("small", "lfcc").is_dir()
    assert state(CACHE) == before
    assert objects() == stored
    assert {path.name for path in CACHE.parent.iterdir()} == {f"tiny{k}.zarr" for k in ("", ".holdout", ".evaluation")}


@pytest.mark.parametrize("tracked", ["hardlink"], indirect=True)
def test_links_take_no_second_place_and_replacing_one_leaves_dvcs_copy_which_comes_back_by_checkout(tracked: Project):
    ours = {file.stat().st_ino for file in CACHE.rglob("*") if file.is_file()}
    theirs = {file.stat().st_ino for file in OBJECTS.rglob("*") if file.is_file()}
    assert ours <= theirs
    assert CHUNK.stat().st_mode & 0o222 == 0

    old, stored, number = content(CACHE), objects(), CHUNK.stat().st_ino
    lock = Path("dvc.lock").read_bytes()
    with without_privileges():
        cache_teacher.run(source("views.seed=1"), part="training", replace=True, wait=False)
    assert content(CACHE) != old
    assert (CHUNK.stat().st_ino, CHUNK.stat().st_nlink) != (number, 2)
    assert objects() == stored
    verify_files(CACHE)
    assert list(tracked("status", MAKING)) == ["cache-teacher"]

    new = content(CACHE)
    tracked.take("cache-teacher")
    assert {name: data for name, data in objects().items() if name in stored} == stored
    assert content(CACHE) == new
    tracked("checkout", MAKING, force=True)
    assert content(CACHE) == new

    Path("dvc.lock").write_bytes(lock)  # as `git checkout` of an older commit does
    tracked("checkout", MAKING, force=True)
    assert content(CACHE) == old
    verify_files(CACHE)


def test_a_changed_objective_set_concerns_its_students_alone(there: Path):
    project = Project("hardlink")
    project.take(*MAKING, *STUDENTS)
    assert project("status", [*MAKING, *STUDENTS]) == {}
    before = state(CACHE)
    config = parse_yaml(CONFIG, "tiny.yaml")
    config["objectives"]["kd"][1]["temperature"] = 2
    Path("tiny.yaml").write_text(to_yaml(config))
    assert list(project("status", [*MAKING, *STUDENTS])) == ["train-students-kd"]
    assert state(CACHE) == before
    config["students"]["vit"]["train"]["learning_rate"] = 2e-3  # the stages keep what is not of this student
    Path("tiny.yaml").write_text(to_yaml(config))
    assert set(project("status", [*MAKING, *STUDENTS])) == set(STUDENTS)


def test_another_cache_concerns_all_students(there: Path):
    tracked = Project("hardlink")
    tracked.take(*MAKING, "train-students-kd")
    assert tracked("status", ["train-students-kd"]) == {}
    cache_teacher.run(source("signals.logits.encoding=float16"), part="training", replace=True, wait=False)
    (reasons,) = tracked("status", ["train-students-kd"]).values()
    assert {"changed deps": {f"{CACHE}/.fingerprint": "modified"}} in reasons
    assert TeacherCache.open(CACHE).manifest.identity.signals.logits.encoding == "float16"


POINTER = {f"{CACHE}/.fingerprint": {"cache": False, "persist": True}}


def test_dvc_repro_with_links_and_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The commands themselves: what `dvc repro` runs, where read-only means read-only."""
    monkeypatch.chdir(begin(tmp_path / "a" / "project"))
    project = Project("hardlink")
    run("dvc", "repro", "train-students-kd")
    with pytest.raises(AssertionError, match="Permission denied"):
        run("sh", "-c", f"echo >> {CHUNK}")
    old, lock, before = content(CACHE), Path("dvc.lock").read_bytes(), state(CACHE)
    run("dvc", "push")

    rewrite(lambda config: config["students"]["small"].update(train={"epochs": 1}))
    assert "Running stage 'train-students-kd'" in run("dvc", "repro", "train-students-kd")
    assert state(CACHE) == before

    stored = objects()
    rewrite(lambda config: config["views"].update(seed=1))
    assert "Running stage 'cache-teacher'" in run("dvc", "repro", "train-students-kd")
    assert content(CACHE) != old
    assert {name: data for name, data in objects().items() if name in stored} == stored

    shutil.rmtree(".dvc/cache")
    Path("dvc.lock").write_bytes(lock)
    Path("tiny.yaml").write_text(CONFIG)
    run("dvc", "pull", "--force", *MAKING)  # the teacher was trained on the same views
    assert content(CACHE) == old
    verify_files(CACHE)
    assert project("status", MAKING) == {}


def test_a_cache_of_which_dvc_tracks_the_fingerprint_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(begin(tmp_path / "a" / "project"))
    Project("hardlink")
    stages = parse_yaml(Path("dvc.yaml").read_text(), "dvc.yaml")
    stages["stages"]["cache-teacher"]["outs"] = [POINTER]
    stages["stages"]["cache-teacher"]["cmd"] += " --replace"
    Path("dvc.yaml").write_text(to_yaml(stages))
    run("dvc", "repro", "train-students-kd")
    assert CHUNK.stat().st_nlink == 1
    assert CHUNK.read_bytes() not in objects().values()
    before = state(CACHE)
    assert "pipelines are up to date" in run("dvc", "repro", "train-students-kd")
    assert state(CACHE) == before
    rewrite(lambda config: config["views"].update(seed=1))
    output = run("dvc", "repro", "train-students-kd")
    assert "Running stage 'cache-teacher'" in output
    assert "Running stage 'train-students-kd'" in output
    assert state(CACHE) != before
    verify_files(CACHE)


def rewrite(change: Callable[[Any], None]) -> None:
    """Change the configuration in its file, which DVC reads."""
    config = parse_yaml(Path("tiny.yaml").read_text(), "tiny.yaml")
    change(config)
    Path("tiny.yaml").write_text(to_yaml(config))


def run(*command: str) -> str:
    """What a command prints; the commands are those of this tree."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*COMMAND, *command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
