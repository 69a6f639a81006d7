"""Tells which version of Decant is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "decant-kd"


def installed_version() -> str | None:
    """Return the version of Decant as pip knows it; None for a checkout that is not installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return None
