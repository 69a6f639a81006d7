"""What version 0.1 made stays valid: its packed files, teachers, caches and students open, verify and are trained from.

`artifacts.tar.xz` was made by version 0.1 (commit d061bc1): the tiny experiment `tiny.yaml` from `raw.h5` to one
student, and `photos.yaml`, a cache of JPEG files of differing sizes with every encoding, compressed.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from intact import verify_files

from pipeline.data import PackedDataset
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.publishing.artifacts import published
from pipeline.store.reader import TeacherCache
from stages import cache_teacher, prepare_data, train_student, train_teacher

FINGERPRINTS = {
    "artifacts/teacher": "d6ffc57991848fc6615012fa86507645a0da4c65413323fbb83ccca35d3a95a8",
    "artifacts/caches/tiny.evaluation.zarr": "affdcbd8635072dfb783048da0b8adccabe8139dfa641cd788ca77d1b849c62f",
    "artifacts/caches/tiny.holdout.zarr": "e837091b39294f63d3885e8cf24491f885661d1af0cc087a9c6bd073ed5483c6",
    "artifacts/caches/tiny.zarr": "0f36305f5f0e5a04dc061e069376f607ed03c7753205b8bb2620c4556977f6be",
    "artifacts/tiny/students/small/kd/seed-0": "f75003956d89e2c6338a5c6f72d8b3bfd1a07603f5739d5b557ca191e70977a3",
    "photos.zarr": "33c3d80448f710b3f5fe5bd8b87fbf9f414b05b917f03a9039ae416949328a64",
}
"""As version 0.1 wrote them."""


@pytest.fixture
def made_by_0_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the artifacts, as the working directory."""
    with tarfile.open(Path(__file__).with_name("artifacts.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_fingerprints_are_those_that_version_0_1_wrote(made_by_0_1: Path) -> None:
    assert {path: published(made_by_0_1 / path) for path in FINGERPRINTS} == FINGERPRINTS


def test_every_command_finds_its_work_done(made_by_0_1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data, teacher, caches and student have the identities that this version computes: nothing is made again."""
    before = {path: path.stat().st_mtime_ns for path in made_by_0_1.rglob("*") if path.is_file()}
    tiny = ConfigFile(Path("tiny.yaml"))
    prepare_data.run(tiny, replace=False)
    train_teacher.run(tiny, replace=False, wait=False)
    cache_teacher.run(tiny, replace=False, wait=False)
    train_student.run(tiny, RunName("small", "kd"), verify="full", replace=False, wait=False)
    after = {path: path.stat().st_mtime_ns for path in made_by_0_1.rglob("*") if path.is_file()}
    assert {path: time for path, time in after.items() if path.name != "holder.json"} == before
    said = capsys.readouterr()
    assert "there already" in said.err or "already there" in said.out


def test_a_student_is_trained_from_its_cache(made_by_0_1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All views match the pixels that the teacher saw."""
    tiny = ConfigFile(Path("tiny.yaml"), ["train.epochs=3"])
    train_student.run(tiny, RunName("small", "lfcc"), verify="full", replace=False, wait=False)
    assert "all 2 views match the teacher's pixels" in capsys.readouterr().out
    assert Path("artifacts/tiny/students/small/lfcc/seed-0/student.safetensors").exists()


def test_its_caches_verify_and_can_be_read(made_by_0_1: Path) -> None:
    for path in (path for path in FINGERPRINTS if path.endswith(".zarr")):
        assert verify_files(made_by_0_1 / path) > 0, path
        cache = TeacherCache.open(made_by_0_1 / path)
        assert cache.read(cache.views.start, np.arange(cache.count)).logits.shape == (cache.count, 4)


def test_compressed_files_of_photographs(made_by_0_1: Path) -> None:
    """JPEG files of differing sizes in one packed file, and a cache of them with top-k, int8 and float16."""
    train = PackedDataset.open(Path("photos.h5")).split("train")
    assert (train.count, train.image_shape) == (12, None)
    images = train.read(np.arange(12))
    assert [tuple(image.shape) for image in images[:3]] == [(3, 9, 8), (3, 10, 8), (3, 11, 8)]
    cache = TeacherCache.open(Path("photos.zarr"))
    signals = cache.read(0, np.arange(12))
    assert signals.logits.shape == (12, 4)
    assert cache.manifest.identity.chunking.compression == "zstd"
