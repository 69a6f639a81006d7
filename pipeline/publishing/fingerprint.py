"""Compares identities, nested plain values that say what an artifact is, and computes their fingerprints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

_NOTHING = object()


def canonical(value: Any) -> str:
    """Write plain values as their one JSON text: sorted keys, no spaces. Refuses NaN and infinity; tuples are lists.

    Args:
        value: nested plain values.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Compute the SHA-256 of an identity's canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()


def differences(
    expected: Mapping[str, Any],
    got: Mapping[str, Any],
    ignore: Collection[str] = (),
    *,
    provides: bool = False,
) -> list[str]:
    """Return a line `dotted.field: expected X, got Y` for every field in which two identities differ.

    Args:
        ignore: dotted fields that are not compared, with all below them.
        provides: `got` may have fields that `expected` does not name.
    """
    lines: list[str] = []
    _compare("", json.loads(canonical(expected)), json.loads(canonical(got)), ignore, provides, lines)
    return lines


def _compare(key: str, expected: Any, got: Any, ignore: Collection[str], provides: bool, lines: list[str]) -> None:
    if key in ignore:
        return
    if isinstance(expected, dict) and isinstance(got, dict):
        for name in expected if provides else {**expected, **got}:
            inner = f"{key}.{name}" if key else name
            _compare(inner, expected.get(name, _NOTHING), got.get(name, _NOTHING), ignore, provides, lines)
    elif _lists(expected, got) and len(expected) == len(got):
        for index, (one, other) in enumerate(zip(expected, got, strict=True)):
            _compare(f"{key}.{index}", one, other, ignore, provides, lines)
    elif _text(expected) != _text(got):
        lines.append(f"{key}: expected {_short(expected)}, got {_short(got)}")


def _text(value: Any) -> str | None:
    """Return a value as JSON, which distinguishes 1 from True and 1.0 unlike `==`; None for an absent field."""
    return None if value is _NOTHING else canonical(value)


def _lists(*values: object) -> bool:
    return all(isinstance(value, Sequence) and not isinstance(value, str) for value in values)


def _short(value: Any, limit: int = 100) -> str:
    if value is _NOTHING:
        return "nothing"
    text = canonical(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
