"""Where artifacts lie, finished and unfinished, and what says which they are."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.store.location import RemotePath, StorePath
from pipeline.store.store_files import files_at
from pipeline.store.zarr_files import ROOT

FINGERPRINT = ".fingerprint"
"""The file in every published artifact that holds its fingerprint."""

DIGITS = 16
"""So many digits of the fingerprint are in the folder's name."""

CLAIM = "claim.json"
"""The object, in the scratch prefix of a store on object storage, that says who makes it."""


def scratch_folder(target: Path, fingerprint: str) -> Path:
    """The folder in which the artifact with this fingerprint is made before it is published at `target`."""
    return target.parent / f".{target.name}.{fingerprint[:DIGITS]}.partial"


def scratch_prefix(target: RemotePath) -> RemotePath:
    """Where, beside a store on object storage, lies what is known of it before it is published."""
    return target.with_name(f".{target.name}.partial")


def is_scratch_folder(path: StorePath) -> bool:
    """Whether this is the folder of an unfinished artifact, by its name."""
    return re.fullmatch(rf"\..+\.[0-9a-f]{{{DIGITS}}}\.partial", path.name) is not None


def published(target: StorePath) -> str | None:
    """The fingerprint of the artifact at `target`; None if there is none, or nothing that Decant published."""
    files = files_at(target)
    try:
        found = re.fullmatch(rb"([0-9a-f]{64})\n?", files.read(FINGERPRINT, 100))
    except OSError:
        return None
    if found and isinstance(target, RemotePath) and not files.has(ROOT):
        return None  # objects cannot be renamed: a store there is published by its manifest, which is put last
    return found and found[1].decode()


def finished(target: StorePath, fingerprint: str) -> bool:
    """Whether the artifact with this fingerprint is published at `target`."""
    return published(target) == fingerprint


def unfinished(target: Path) -> list[Path]:
    """The scratch folders of `target`, of whatever fingerprint."""
    return sorted(target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * DIGITS}.partial"))


def work_begun(target: StorePath) -> Sequence[StorePath]:
    """Where lies what is known of unfinished artifacts for `target`: scratch folders, or a prefix with a claim."""
    if not isinstance(target, RemotePath):
        return unfinished(target)
    prefix = scratch_prefix(target)
    return [prefix] if files_at(prefix).has(CLAIM) else []
