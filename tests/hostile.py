"""What a reader of other people's files must survive: hostile values, mutated documents, mutated bytes."""

from __future__ import annotations

import copy
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError

few = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
many = settings(few, max_examples=10_000, derandomize=False)
"""For tests marked long."""

Place = tuple[Any, ...]
"""Keys and indices that lead to a place in a JSON document."""


def corpus(kind: str) -> list[Path]:
    """The files that once broke a reader, or might have: `tests/corpus/<kind>/`."""
    return sorted((Path(__file__).parent / "corpus" / kind).iterdir())


class Raw(str):
    """A JSON text that no Python value writes: `dumps` puts it in as it stands."""


def deep(levels: int) -> Raw:
    """So many arrays inside one another."""
    return Raw("[" * levels + "]" * levels)


HOSTILE: list[Any] = [
    {"name": "float16"},
    {"name": "topk", "k": 3},
    None,
    True,
    False,
    0,
    -1,
    1.0,
    1e300,
    -0.0,
    2**31,
    2**60,
    2**63,
    2**64,
    10**30,
    -(2**60),
    Raw("1" + "0" * 5000),
    Raw("-" + "9" * 300),
    Raw("NaN"),
    Raw("Infinity"),
    Raw("-Infinity"),
    Raw("1e999"),
    Raw('"\\ud800"'),
    Raw('"\\u0000"'),
    Raw('{"a": 1, "a": 2}'),
    deep(40),
    deep(900),
    deep(100_000),
    "",
    ".",
    "..",
    "../../x",
    "/etc/passwd",
    "a/../b",
    "a\0b",
    "\x1b[2J",
    "\u202e",
    "__import__('os')",
    "os.system",
    "_contract",
    "-contract",
    "--init--",
    "float32.",
    "x" * 70_000,
    [],
    {},
    [0],
    [-1],
    [1.5],
    [True],
    [2**40, 2**40],
    [2**31, 2**31, 2**31],
    ["a"],
    [None],
    [1] * 100,
    [1] * 10_000,
    {"": {}},
    {"..": {"shape": [4, 2, 2], "encoding": "float16"}},
    {"/abs": {"shape": [4, 2, 2], "encoding": "float16"}},
    {"c": {"shape": [1], "encoding": "float32"}},
    {"x.y": {"shape": [1, 1, 1], "encoding": "float16"}, "x": {"shape": [1, 1, 1], "encoding": "float32"}},
    {f"block{i}": {"shape": [1, 1, 1], "encoding": "float16"} for i in range(300)},
]

hostile_values = st.one_of(
    st.sampled_from(HOSTILE),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-2, 2**33), max_size=5),
).map(copy.deepcopy)


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """Every place in a document, the whole first."""
    yield here
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*here, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*here, index))


def at(value: Any, place: Place) -> Any:
    """The value at a place."""
    for key in place:
        value = value[key]
    return value


@st.composite
def mutated(draw: st.DrawFn, document: Any, most: int = 3) -> Any:
    """A copy of a JSON document with a few places replaced, removed, added or exchanged."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        inner = [place for place in places(document) if place and not isinstance(at(document, place), Raw)]
        if not inner:
            break
        place = draw(st.sampled_from(inner))
        parent, key = at(document, place[:-1]), place[-1]
        match draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "exchange", "rename"])):
            case "replace":
                parent[key] = draw(hostile_values)
            case "remove":
                del parent[key]
            case "add" if isinstance(parent, list):
                parent.insert(key, draw(hostile_values))
            case "add":
                parent[draw(st.sampled_from(["extra", "..", "", "__class__", "shape", "encoding"]))] = draw(
                    hostile_values
                )
            case "exchange":
                parent[key] = copy.deepcopy(at(document, draw(st.sampled_from(inner))))
            case "rename" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["../../x", "/abs", "a/b", "a\0b", "c", "..", "x" * 300]))] = parent.pop(
                    key
                )
    return document


def dumps(value: Any, canonical: bool = False) -> str:
    """The JSON text of a document with `Raw` values in it."""
    raw: list[Raw] = []

    def marked(value: Any) -> Any:
        if isinstance(value, Raw):
            raw.append(value)
            return f"\x00raw{len(raw) - 1}\x00"
        if isinstance(value, dict):
            return {key: marked(inner) for key, inner in value.items()}
        return [marked(inner) for inner in value] if isinstance(value, list) else value

    options: dict[str, Any] = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": False} if canonical else {}
    text = json.dumps(marked(value), **options)
    for number, part in enumerate(raw):
        text = text.replace(f'"\\u0000raw{number}\\u0000"', part)
    return text


@st.composite
def changed_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes cut off, flipped, spliced, repeated or replaced."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.sampled_from(["flip", "set", "cut", "insert", "drop", "splice"])):
            case "flip" if content:
                content[place] ^= 1 << draw(st.integers(0, 7))
            case "set" if content:
                content[place] = draw(st.sampled_from([0, 255, 127, 128, 10, 34, 92, 123, 125]))
            case "cut":
                del content[place:]
            case "insert":
                content[place:place] = draw(st.binary(max_size=20))
            case "drop":
                del content[place : place + draw(st.integers(1, 50))]
            case "splice":
                start = draw(st.integers(0, max(0, len(whole) - 1)))
                content[place:place] = whole[start : start + draw(st.integers(1, 200))]
    return bytes(content)


def in_child(action: Callable[[], object], seconds: int = 200, memory: int = 8 << 30) -> str:
    """What an action raised in a process of its own: nothing, or the name of a PipelineError.

    For readers in C, which may crash or never return. Fails if it does, or raises anything else.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        try:
            action()
            said = "nothing"
        except PipelineError as error:
            said = type(error).__name__
        except BaseException as error:
            said = f"WRONG {type(error).__name__}: {error!s:.200}"
        os.write(writer, said.encode(errors="replace"))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode()
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"ended by signal {os.WTERMSIG(status)}"
    assert not said.startswith("WRONG"), said
    return "" if said == "nothing" else said


@contextmanager
def bounded(seconds: float = 10.0, memory: int = 400 << 20) -> Iterator[None]:
    """Fails if what is done inside computes longer, or makes the process larger by more bytes than this."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    passed = time.process_time() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert passed < seconds, f"took {passed:.1f} s"
    assert grown < memory, f"grew by {grown / 1e6:.0f} MB"
