from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.planning.disks import Disk, DvcCache, device, existing


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `.dvc`, as the working directory; the user's own settings of DVC do not count."""
    for level in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"DVC_{level}_CONFIG_DIR", str(tmp_path / level))
    folder = tmp_path / "repository"
    (folder / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def found() -> DvcCache:
    cache = DvcCache.find()
    assert cache is not None
    return cache


def test_a_path_that_is_not_there_is_on_the_disk_of_the_nearest_folder_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert existing(Path("a/b/c.zarr")) == tmp_path
    assert existing(Path("/")) == Path("/")
    assert device(Path("a/b/c.zarr")) == tmp_path.stat().st_dev
    disk = Disk.of(Path("a/b/c.zarr"))
    assert disk.path.is_mount()
    assert tmp_path.resolve().is_relative_to(disk.path)
    assert disk.free > 0


def test_no_repository_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert DvcCache.find() is None


def test_by_default_dvc_copies_where_it_cannot_reflink(repository: Path):
    cache = found()
    assert cache.folder == repository / ".dvc/cache"
    assert cache.types == ("reflink", "copy")
    assert not cache.links(repository / "artifacts")


@pytest.mark.parametrize(
    ("types", "links"),
    [("reflink,hardlink,copy", True), ("hardlink", True), ("symlink", True), ("reflink,copy", False), ("copy", False)],
)
def test_link_types(repository: Path, types: str, links: bool):
    (repository / ".dvc/config").write_text(f"[cache]\n    type = {types}\n")
    assert found().links(Path("artifacts/caches/x.zarr")) == links


def test_the_cache_may_lie_elsewhere_and_a_local_configuration_comes_first(repository: Path):
    (repository / ".dvc/config").write_text("[cache]\n    dir = ../../shared\n    type = copy\n")
    (repository / ".dvc/config.local").write_text("[cache]\n    type = hardlink\n")
    cache = found()
    assert cache.folder.resolve() == (repository.parent / "shared").resolve()
    assert cache.types == ("hardlink",)


def test_the_repository_of_a_folder_below_it(repository: Path, monkeypatch: pytest.MonkeyPatch):
    (repository / "below").mkdir()
    monkeypatch.chdir(repository / "below")
    assert found().folder == repository / ".dvc/cache"


def test_a_link_across_file_systems_is_none(repository: Path, on_disk: Path):
    memory = Path("/dev/shm")
    if not memory.is_dir() or device(memory) == device(on_disk):
        pytest.skip("needs a second file system, /dev/shm")
    (repository / ".dvc/config").write_text(f"[cache]\n    dir = {on_disk}\n    type = hardlink,symlink\n")
    assert found().links(on_disk / "x.zarr")
    assert not found().links(memory / "x.zarr")


def test_a_configuration_that_dvc_cannot_read_is_named(repository: Path):
    (repository / ".dvc/config").write_text("[cache]\n    type = softlink\n")
    with pytest.raises(ConfigError, match=r"\.dvc/config: is not a configuration of DVC"):
        DvcCache.find()
