"""Finds artifacts in folders, finished and unfinished, and their fingerprints."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from pipeline.publishing.folder_files import LocalFiles

FINGERPRINT = ".fingerprint"
"""The file in every published artifact that holds its fingerprint."""

DIGITS = 16
"""So many digits of the fingerprint are in the folder's name."""


def scratch_folder(target: Path, fingerprint: str) -> Path:
    """Return the folder in which the artifact with this fingerprint is made before it is published at `target`."""
    return target.parent / f".{target.name}.{fingerprint[:DIGITS]}.partial"


def is_scratch_folder(name: str) -> bool:
    """Tell whether a folder of this name is that of an unfinished artifact."""
    return re.fullmatch(rf"\..+\.[0-9a-f]{{{DIGITS}}}\.partial", name) is not None


def parse_fingerprint(content: bytes) -> str | None:
    """Return the fingerprint in the `content` of a file `.fingerprint`; None if there is none."""
    found = re.fullmatch(rb"([0-9a-f]{64})\n?", content)
    return found and found[1].decode()


def published(folder: Path) -> str | None:
    """Return the fingerprint of the artifact in a folder; None if there is none, or nothing that Decant published."""
    try:
        return parse_fingerprint(LocalFiles(folder).read(FINGERPRINT, 100))
    except OSError:
        return None


def unfinished(target: Path) -> list[Path]:
    """Return the scratch folders of `target`, with any fingerprint."""
    return sorted(target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * DIGITS}.partial"))
