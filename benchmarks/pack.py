"""Packs the repository, and data and wheels that it is to have, into one tar of less than 64 MiB.

    python benchmarks/pack.py pack decant.tar [--wheels FOLDER] [DATA ...]
    tar xf decant.tar && cd decant && python benchmarks/pack.py verify

In the archive all is below `decant/`: the files that git knows, and those that it does not ignore, where they are; DATA
below `data/`; wheels below `wheels/`. `MANIFEST.json` says of each its bytes and SHA-256, and of which commit it is.
The same content makes the same archive. Needs Python and git alone, and to verify Python alone.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOP, MANIFEST = "decant", "MANIFEST.json"
MOST = 64 * 2**20
"""Bytes of an archive."""

NAMED = 5
"""Of the largest files, in the message that it is too large."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write the archive")
    packing.add_argument("archive", type=Path)
    packing.add_argument("data", type=Path, nargs="*", help="files, and folders with all that is in them")
    packing.add_argument("--wheels", type=Path, help="a folder of wheels")
    verifying = commands.add_parser("verify", help="compare what was unpacked with its manifest")
    verifying.add_argument("folder", type=Path, nargs="?", default=ROOT)
    given = parser.parse_args(arguments)
    if given.command == "verify":
        if wrong := differing(given.folder):
            sys.exit("\n".join(wrong))
        print("all as it was packed")
        return
    archive = given.archive.resolve()
    files = {name: path for name, path in contents(ROOT, given.data, given.wheels).items() if path.resolve() != archive}
    try:
        size = pack(given.archive, files, _commit(ROOT))
    except ValueError as error:
        sys.exit(str(error))
    print(f"{given.archive}: {len(files):,} files, {size / 2**20:.1f} MiB")


def contents(root: Path, data: Iterable[Path] = (), wheels: Path | None = None) -> dict[str, Path]:
    """The files of an archive by their names in it.

    Args:
        root: the repository.
        data: files and folders.
        wheels: a folder.
    """
    listed = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    found = {name: root / name for name in names if name and (root / name).is_file()}
    for place in data:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file():
                found[f"data/{path.relative_to(place.parent)}"] = path
    for path in sorted(wheels.glob("*.whl")) if wheels else ():
        found[f"wheels/{path.name}"] = path
    return dict(sorted(found.items()))


def pack(archive: Path, files: dict[str, Path], commit: str, most: int = MOST) -> int:
    """Write an archive; its bytes. Raises ValueError, and leaves nothing, if they are too many.

    Args:
        files: by their names in it.
        commit: of the repository.
        most: bytes that it may have.
    """
    sizes = {name: path.stat().st_size for name, path in files.items()}
    if sum(sizes.values()) > most:
        raise ValueError(_too_large(sum(sizes.values()), most, sizes))
    listed = {name: {"bytes": sizes[name], "sha256": _sha256(path)} for name, path in files.items()}
    manifest = json.dumps({"commit": commit, "files": listed}, indent=1).encode()
    partial = archive.with_name(f".{archive.name}.partial")
    try:
        with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, MANIFEST, manifest, 0o644)
            for name, path in files.items():
                _add(tar, name, path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644)
        if (size := partial.stat().st_size) > most:
            raise ValueError(_too_large(size, most, sizes))
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)
    return size


def differing(folder: Path) -> list[str]:
    """What of an unpacked archive is not as its manifest says."""
    listed = json.loads((folder / MANIFEST).read_text())["files"]
    found = []
    for name, expected in listed.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is not there")
        elif path.stat().st_size != expected["bytes"] or _sha256(path) != expected["sha256"]:
            found.append(f"{name} is another file than the one that was packed")
    return found


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(f"{TOP}/{name}")
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _too_large(size: int, most: int, sizes: dict[str, int]) -> str:
    largest = sorted(sizes, key=lambda name: -sizes[name])[:NAMED]
    named = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
    return f"the archive would have {size / 2**20:.1f} MiB, and may have {most / 2**20:.1f}; the largest: {named}"


def _commit(root: Path) -> str:
    said = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return said.stdout.strip()


if __name__ == "__main__":
    main()
