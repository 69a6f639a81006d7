"""Records how a data set was packed, in an attribute of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.data.source import SourceOptions
from pipeline.untrusted import parse_json

ORIGIN_ATTRIBUTE = "packed_from"


@dataclass(frozen=True)
class Origin:
    """Records what was packed, and what was left out.

    Args:
        source: the options of `data.source`, as they were written, defaults included.
        skipped: the unreadable images that were left out, per split.
    """

    source: Mapping[str, Any]
    skipped: Mapping[str, int]

    def to_text(self) -> str:
        """Write JSON with sorted keys: the same for the same origin."""
        return json.dumps({"source": dict(self.source), "skipped": dict(self.skipped)}, sort_keys=True)

    @classmethod
    def read(cls, text: str) -> Origin | None:
        """Read the origin in the `text` of an attribute; None if Decant did not write it."""
        try:
            value = parse_json(text.encode())
        except ValueError:
            return None
        if not isinstance(value, dict) or set(value) != {"source", "skipped"}:
            return None
        source, skipped = value["source"], value["skipped"]
        if not isinstance(source, dict) or not isinstance(skipped, dict):
            return None
        return cls(source, skipped) if all(type(count) is int for count in skipped.values()) else None

    def differences(self, source: SourceOptions, unreadable: Literal["refuse", "skip"]) -> list[str]:
        """Return a line for each option of `data` by which something else would be packed now.

        Args:
            source, unreadable: as the configuration has them now.
        """
        then, now = dict(self.source), source.identity()
        # Another kind of source differs in everything: its name says enough.
        keys = sorted({*then, *now}) if then.get("name") == now["name"] else ["name"]
        lines = [
            f"data.source.{key}: expected {_text(now, key)}, got {_text(then, key)}"
            for key in keys
            if _text(then, key) != _text(now, key)
        ]
        if unreadable == "refuse" and (count := sum(self.skipped.values())):
            lines.append(f"data.unreadable: expected refuse, got skip, which left {count} images out")
        return lines


def _text(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], sort_keys=True) if key in values else "nothing"
