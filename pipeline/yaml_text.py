"""Reads and writes YAML 1.2, in which `1e-4` is a number and `no` is a word, and overrides values of it."""

from __future__ import annotations

import copy
import functools
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import ConfigError, Problem
from pipeline.untrusted import require_plain

MOST_BYTES, MOST_VALUES = 1 << 18, 100_000
"""The most bytes and values of a configuration; aliases count as often as they occur."""

TOO_DEEP = re.compile(r"(?:[\[{]\s*){500}")
"""So many lists or mappings that open one in another, which take the parser seconds before it gives up."""

ONLY_PURE = re.compile(r"[\t%&!|>]|[^\n -\ud7ff]")
"""What libyaml and the parser in Python read in different ways: tabs, directives, tags, blocks, rare characters."""

DEEP_LINE, MANY_OPENED = re.compile(r"(?:[-?:] +){100}"), 1000
"""What may be nested too deeply for libyaml, which knows no limit and would end the process: on a line, by brackets."""

WRITTEN_DIFFERENTLY = re.compile(r"[^\n -~]|['\\]|(?m:^(?=.{70}) *(?:[-?] +)*(?:[^ :]+: )?[^ \n]+ )")
"""What they may write in different ways: quotes, rare characters, lines of words that are long enough to be broken."""

Raw = dict[str, Any]
"""A configuration as it was read: plain YAML values."""


def read_config(path: Path, overrides: Sequence[str] = ()) -> Raw:
    """Read the configuration in the YAML file `path`, and apply `section.key=value` overrides.

    Raises ConfigError if the file cannot be read as a YAML mapping or an override cannot be applied.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1).decode()
    except OSError as error:
        problem = Problem(str(path), f"cannot be read: {error.strerror}", fix="name a file with --config FILE")
        raise ConfigError([problem]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(path), "is not a text file")]) from None
    raw = parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise ConfigError([Problem(str(path), "is not a mapping of sections", got=type(raw).__name__)])
    return override(raw, overrides)


def parse_yaml(text: str, where: str) -> Any:
    """Parse a YAML 1.2 text into plain values. Raises ConfigError, with line and column, if it is not valid.

    Args:
        where: the file or option, for errors.
    """
    if len(text) > MOST_BYTES:
        raise ConfigError([Problem(where, "is too long for a configuration", f"at most {MOST_BYTES:,} bytes")])
    try:
        if TOO_DEEP.search(text):
            raise RecursionError
        return copy.deepcopy(_parsed(text))
    except YAMLError as error:
        raise ConfigError([Problem(where, "is not valid YAML", got=str(error))]) from None
    except RecursionError:
        raise ConfigError([Problem(where, "lists and mappings are nested too deeply")]) from None
    except Exception as error:  # what its parser raises for dates, numbers and tags that are none varies
        raise ConfigError([Problem(where, "holds what is no plain value", got=str(error))]) from None


@functools.lru_cache(maxsize=128)  # a tenth of a second for a configuration, which a command reads several times
def _parsed(text: str) -> Any:
    value = _loaded(text)
    require_plain(value, MOST_VALUES)
    return value


def _loaded(text: str) -> Any:
    """The value of a text, by libyaml where it is installed: five times as fast, and the same (tests/test_config.py).

    What it refuses, the parser in Python reads, or refuses with the line.
    """
    deep = text.count("[") + text.count("{") > MANY_OPENED or DEEP_LINE.search(text)
    if not deep and not ONLY_PURE.search(text):
        with suppress(YAMLError, RecursionError):
            return YAML(typ="safe").load(text)
    return YAML(typ="safe", pure=True).load(text)


def to_yaml(value: Any) -> str:
    """Return a `value` of nested plain values as YAML 1.2 text, whose bytes do not depend on what is installed."""
    text = _dumped(value, pure=False)
    return _dumped(value, pure=True) if WRITTEN_DIFFERENTLY.search(text) else text


def _dumped(value: Any, pure: bool) -> str:
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=pure)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # keep the order of sections
    if not pure:
        yaml.width = MOST_BYTES  # breaks no line
    yaml.dump(value, stream)
    return stream.getvalue()


def override(raw: Raw, overrides: Sequence[str]) -> Raw:
    """Return a copy of `raw` in which every `a.b.c=value` of `overrides` is set. Values are read as YAML.

    Raises ConfigError for overrides that cannot be applied.
    """
    result: Raw = _copied(raw)
    problems: list[Problem] = []
    for text in overrides:
        key, equals, value_text = text.partition("=")
        parts = key.split(".")
        if not equals or not all(parts):
            problems.append(Problem("--set", "is not section.key=value", "such as train.epochs=5", got=text))
            continue
        try:
            value = parse_yaml(value_text, f"--set {text}")
        except ConfigError as error:
            problems += error.problems
            continue
        place: Any = result
        for part in parts[:-1]:
            if isinstance(place, list) and part.isdigit() and int(part) < len(place):
                place = place[int(part)]
            elif isinstance(place, dict):
                if place.get(part) is None:
                    place[part] = {}
                place = place[part]
            else:
                place = None
                break
        last = parts[-1]
        if isinstance(place, dict):
            place[last] = value
        elif isinstance(place, list) and last.isdigit() and int(last) < len(place):
            place[int(last)] = value
        else:
            problems.append(Problem(f"--set {key}", "leads through a value that has no keys", got=text))
    if problems:
        raise ConfigError(problems)
    try:
        require_plain(result, MOST_VALUES)
    except ValueError as error:
        raise ConfigError([Problem("--set", "makes what is no plain value", got=str(error))]) from None
    return result


def _copied(value: Any) -> Any:
    """Return a copy without shared parts, so that what an alias of YAML repeats can be overridden in one place."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value
