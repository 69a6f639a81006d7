"""Where artifacts lie, finished and unfinished, and what says which they are."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from pipeline.untrusted import read_file

FINGERPRINT = ".fingerprint"
"""The file in every published artifact that holds its fingerprint."""

DIGITS = 16
"""So many digits of the fingerprint are in the folder's name."""


def scratch_folder(target: Path, fingerprint: str) -> Path:
    """The folder in which the artifact with this fingerprint is made before it is published at `target`."""
    return target.parent / f".{target.name}.{fingerprint[:DIGITS]}.partial"


def is_scratch_folder(path: Path) -> bool:
    """Whether this is the folder of an unfinished artifact, by its name."""
    return re.fullmatch(rf"\..+\.[0-9a-f]{{{DIGITS}}}\.partial", path.name) is not None


def published(target: Path) -> str | None:
    """The fingerprint of the artifact at `target`; None if there is none, or nothing that Decant published."""
    try:
        found = re.fullmatch(rb"([0-9a-f]{64})\n?", read_file(target / FINGERPRINT, 100))
    except OSError:
        return None
    return found and found[1].decode()


def finished(target: Path, fingerprint: str) -> bool:
    """Whether the artifact with this fingerprint is published at `target`."""
    return published(target) == fingerprint


def unfinished(target: Path) -> list[Path]:
    """The scratch folders of `target`, of whatever fingerprint."""
    return sorted(target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * DIGITS}.partial"))
