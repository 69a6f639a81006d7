"""Mean and covariance of cached signals, kept beside the cache: values, damage, other caches, and being killed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import killed_statistics
import numpy as np
import pytest
import zarr
from cases import case
from processes import output_of

import pipeline.store.statistics
from pipeline.errors import CacheCorrupt
from pipeline.inspection.summary import describe, summary_text
from pipeline.progress import Silent
from pipeline.store.location import RemotePath
from pipeline.store.reader import TeacherCache
from pipeline.store.statistics import compute_moments, kept_moments, statistics_file

MAIN = Path("artifacts/caches/tiny.zarr")


def vectors(path: Path, name: str) -> np.ndarray:
    """Every vector of a signal, as zarr reads them: [N, D]."""
    array = np.asarray(zarr.open_group(path, mode="r")[name]).astype(np.float64)
    return np.moveaxis(array, 2, -1).reshape(-1, array.shape[2])


@pytest.mark.parametrize("name", ["embedding", "features/block2"])
@pytest.mark.parametrize("at_once", [1, 700, 4 << 20])
def test_they_are_numpys(here: Path, name: str, at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline.store.statistics, "NUMBERS_AT_ONCE", at_once)
    cache, everything = TeacherCache.open(MAIN), vectors(MAIN, name)
    found = compute_moments(cache, name, Silent())
    assert found.count == len(everything)
    np.testing.assert_allclose(found.mean, everything.mean(0), rtol=1e-10)
    np.testing.assert_allclose(found.covariance, np.cov(everything, rowvar=False, ddof=0), rtol=1e-9, atol=1e-12)


def test_they_are_computed_once_and_read_again(here: Path, monkeypatch: pytest.MonkeyPatch):
    cache = TeacherCache.open(MAIN)
    first = kept_moments(cache, "features/block2")
    assert Path("artifacts/caches/tiny.statistics/features.block2.safetensors").exists()
    monkeypatch.setattr(pipeline.store.statistics, "compute_moments", None)
    again = kept_moments(TeacherCache.open(MAIN), "features/block2")
    assert again.count == first.count
    assert np.array_equal(again.mean, first.mean)
    assert np.array_equal(again.covariance, first.covariance)
    assert sorted(file.name for file in Path("artifacts/caches/tiny.statistics").iterdir()) == [
        ".gitignore",
        "features.block2.safetensors",
    ]


def test_inspect_names_them(here: Path):
    assert "statistics" not in describe(MAIN)[0]
    for name in ("features/block2", "embedding"):
        kept_moments(TeacherCache.open(MAIN), name)
    (facts,) = describe(MAIN)
    assert facts["statistics"] == ["embedding", "features/block2"]
    assert "mean and covariance of embedding, features/block2, beside it" in summary_text(facts)


def test_those_of_another_cache_or_signal_are_computed_again(among: Path, capsys: pytest.CaptureFixture[str]):
    cache, other = TeacherCache.open(MAIN), TeacherCache.open(Path("other.zarr"))
    kept_moments(cache, "embedding")
    shutil.copytree("artifacts/caches/tiny.statistics", "other.statistics")
    folder = Path("artifacts/caches/tiny.statistics")
    (folder / "embedding.safetensors").replace(folder / "features.block2.safetensors")
    for replaced, signal in ((other, "embedding"), (cache, "features/block2")):
        expected = vectors(replaced.path, signal).mean(0)  # type: ignore[arg-type]
        np.testing.assert_allclose(kept_moments(replaced, signal).mean, expected, rtol=1e-10)
        assert f"{statistics_file(replaced, signal)} is of another cache or signal" in capsys.readouterr().err
        kept_moments(replaced, signal)
        assert capsys.readouterr().err == ""


def test_git_does_not_see_them(here: Path):
    kept_moments(TeacherCache.open(MAIN), "embedding")
    status = ["git", "status", "--porcelain", "--untracked-files=all", "artifacts/caches"]
    subprocess.run(["git", "init", "--quiet"], check=True)
    seen = subprocess.run(status, check=True, capture_output=True, text=True).stdout
    assert "artifacts/caches/tiny.zarr" in seen
    assert "statistics" not in seen


def test_those_of_object_storage_are_kept_on_this_machine(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "home"))
    cache = TeacherCache.open(MAIN)
    expected = vectors(MAIN, "embedding").mean(0)
    monkeypatch.setattr(cache, "path", RemotePath.parse("s3://bucket/tiny.zarr"))
    np.testing.assert_allclose(kept_moments(cache, "embedding").mean, expected, rtol=1e-10)
    (file,) = (here / "home").rglob("*.safetensors")
    assert file.parent.name == cache.manifest.fingerprint
    assert not (here / "artifacts/caches/tiny.statistics").exists()
    monkeypatch.setattr(pipeline.store.statistics, "compute_moments", None)
    np.testing.assert_allclose(kept_moments(cache, "embedding").mean, expected, rtol=1e-10)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: here / "other")
    assert statistics_file(cache, "embedding") == here / "other/.cache" / file.relative_to(here / "home")


def test_of_object_storage_they_are_computed_where_nobody_may_look_for_them(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / ("long" * 100)))  # the system refuses the question
    cache = TeacherCache.open(MAIN)
    monkeypatch.setattr(cache, "path", RemotePath.parse("s3://bucket/tiny.zarr"))
    np.testing.assert_allclose(kept_moments(cache, "embedding").mean, vectors(MAIN, "embedding").mean(0), rtol=1e-10)
    assert "is not kept, and will be computed again" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["flip", "short", "empty"])
def test_damage_is_found(here: Path, damage: str):
    cache = TeacherCache.open(MAIN)
    kept_moments(cache, "embedding")
    path = statistics_file(cache, "embedding")
    assert path is not None
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes({"flip": bytes(data), "short": bytes(data[:-8]), "empty": b""}[damage])
    with pytest.raises(CacheCorrupt, match="delete it"):
        kept_moments(cache, "embedding")


def test_where_nothing_can_be_written_they_are_computed_each_time(here: Path, capsys: pytest.CaptureFixture[str]):
    Path("artifacts/caches/tiny.statistics").write_text("in the way")
    cache = TeacherCache.open(MAIN)
    found = [kept_moments(cache, "embedding").mean for _ in range(2)]
    np.testing.assert_allclose(found[0], vectors(MAIN, "embedding").mean(0), rtol=1e-10)
    assert np.array_equal(*found)
    assert capsys.readouterr().err.count("embedding.safetensors is not kept") == 2


def test_a_process_that_is_killed_leaves_nothing_or_all(
    road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {where: shutil.copytree(road, tmp_path / where) for where in killed_statistics.PLACES}
    output_of(killed_statistics.run, str(MAIN), folders, log=tmp_path / "log")
    for where, folder in folders.items():
        with case(where=where), monkeypatch.context() as patch:
            patch.chdir(folder)
            cache = TeacherCache.open(MAIN)
            path = statistics_file(cache, "embedding")
            assert path is not None
            assert path.exists() == (where == "writing")
            expected = vectors(MAIN, "embedding")
            np.testing.assert_allclose(kept_moments(cache, "embedding").mean, expected.mean(0), rtol=1e-10)
