"""What is carried to a machine without a network: one archive, the same each time, with a manifest that is compared."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

packing = pytest.importorskip("pack")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / "code").mkdir(parents=True)
    (root / "code/run.py").write_text("print(1)\n")
    (root / "code/run.py").chmod(0o755)
    (root / ".gitignore").write_text("/cache/\n")
    (root / "new file.txt").write_text("git does not know it yet")
    (root / "cache").mkdir()
    (root / "cache/large").write_bytes(bytes(1000))
    for command in (("init", "-q"), ("add", "code", ".gitignore")):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    return root


def test_all_is_there_and_a_changed_file_is_named(repository: Path, tmp_path: Path) -> None:
    data, wheels, archive = tmp_path / "images", tmp_path / "wheels", tmp_path / "all.tar"
    for folder, name in ((data / "train", "a.h5"), (wheels, "some-1.0.whl"), (wheels, "notes.txt")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    files = packing.contents(repository, [data], wheels)
    expected = [".gitignore", "code/run.py", "data/images/train/a.h5", "new file.txt", "wheels/some-1.0.whl"]
    assert list(files) == expected
    size = packing.pack(archive, files, "0123")
    assert size == archive.stat().st_size
    first = archive.read_bytes()
    (repository / "code/run.py").touch()
    packing.pack(archive, files, "0123")
    assert archive.read_bytes() == first
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    there = tmp_path / "decant"
    assert packing.differing(there) == []
    assert (there / "code/run.py").stat().st_mode & 0o111
    (there / "code/run.py").write_text("print(2)\n")
    (there / "new file.txt").unlink()
    assert packing.differing(there) == [
        "code/run.py is another file than the one that was packed",
        "new file.txt is not there",
    ]
    with pytest.raises(SystemExit, match=r"code/run\.py is another"):
        packing.main(["verify", str(there)])


@pytest.mark.parametrize("most", [30, 5000])
def test_what_is_too_large_is_refused_and_the_largest_are_named(repository: Path, tmp_path: Path, most: int) -> None:
    """By the files alone, and by the archive with its padding."""
    archive = tmp_path / "all.tar"
    with pytest.raises(ValueError, match=r"may have 0\.0; the largest: new file\.txt"):
        packing.pack(archive, packing.contents(repository), "0123", most=most)
    assert not list(tmp_path.glob("*.tar*")) + list(tmp_path.glob(".*"))
