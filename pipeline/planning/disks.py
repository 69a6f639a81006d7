"""Finds the file system of a path, what is free there, and whether DVC's cache can link to it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError, Problem

LINKS = {"hardlink", "symlink"}
"""DVC's link types that work within any file system. A reflink needs one that knows how, so it does not count."""


@dataclass(frozen=True)
class Disk:
    """Describes a file system.

    Args:
        path: its mount point.
        free: bytes that are free.
        needed: bytes still to be written.
        copied: bytes that DVC's cache takes on top of that.
    """

    path: Path
    free: int
    needed: int = 0
    copied: int = 0

    @classmethod
    def of(cls, path: Path) -> Disk:
        """Return the file system on which a path is, or will be."""
        here = existing(path).resolve()
        mount = next((folder for folder in (here, *here.parents) if folder.is_mount()), here)
        return cls(mount, shutil.disk_usage(here).free)


@dataclass(frozen=True)
class DvcCache:
    """Describes DVC's cache of the working directory's repository.

    Args:
        folder: where it lies.
        types: the link types that it may use.
    """

    folder: Path
    types: tuple[str, ...]

    @classmethod
    def find(cls) -> DvcCache | None:
        """Find the cache; None outside a DVC repository. Raises ConfigError if DVC's configuration cannot be read."""
        here = Path.cwd()
        root = next((folder / ".dvc" for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), None)
        if root is None:
            return None
        from dvc.config import Config
        from dvc.exceptions import DvcException

        try:
            cache = Config(str(root))["cache"]
        except DvcException as error:
            problem = Problem(str(root / "config"), "is not a configuration of DVC", got=str(error))
            raise ConfigError([problem]) from None
        return cls(Path(cache.get("dir") or root / "cache"), tuple(cache.get("type") or ("reflink", "copy")))

    def links(self, path: Path) -> bool:
        """Tell whether DVC keeps what it tracks at a path as a link to its cache, and not as a second copy."""
        return device(path) == device(self.folder) and not LINKS.isdisjoint(self.types)


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def device(path: Path) -> int:
    """Return a number for the file system on which a path is, or will be: paths on one file system have the same."""
    return existing(path).stat().st_dev
