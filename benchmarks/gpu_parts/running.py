"""Runs a part, in this process or in one of its own that is stopped at the deadline."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpu_parts.parts import Part
from gpu_parts.record import Line, Note, part_record, said, text_of
from gpu_parts.sizes import Sizes

GRACE = 5.0
"""Seconds that a part may take beyond its deadline, for what it has begun."""


@dataclass(frozen=True)
class Place:
    """Where a part runs. folder: for data, which parts share; device: `cuda` or `cpu`."""

    folder: Path
    sizes: Sizes
    device: torch.device

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"


Function = Callable[[Note, Place], None]


def function_of(part: Part) -> Function:
    """The function that answers the question of a part."""
    module, _, name = part.function.partition(":")
    found: Function = getattr(importlib.import_module(module), name)
    return found


def here(function: Function, place: Place, seconds: float) -> dict[str, Any]:
    """Run a part in this process; its record. It looks at its deadline itself."""
    lines: list[Line] = []
    start, error = time.monotonic(), None
    try:
        function(Note(lines.append, seconds, place.sizes.left_out), place)
    except Exception as raised:
        error = said(raised)
    return part_record(lines, "failed" if error else "done", error, time.monotonic() - start)


def apart(function: Function, place: Place, seconds: float) -> dict[str, Any]:
    """Run a part in a process of its own; its record. What it took down until it was stopped, or died, is kept.

    The process is forked: torch is imported once. This one must not use a GPU.
    """
    kept, start = place.folder / "lines.jsonl", time.monotonic()
    kept.write_text("")
    child = multiprocessing.get_context("fork").Process(target=_child, args=(function, place, seconds, kept))
    child.start()
    child.join(seconds + GRACE)
    late = child.is_alive()
    if late:
        child.kill()
        child.join()
    lines = [json.loads(line) for line in kept.read_text().splitlines() if line.endswith("}")]
    errors = [line["error"] for line in lines if "error" in line]
    if late:
        status, reason = "late", f"stopped {GRACE:.0f} s after its deadline of {seconds:.0f} s"
    elif errors:
        status, reason = "failed", errors[0]
    elif child.exitcode:
        status, reason = "failed", f"the process ended with {child.exitcode}"
    else:
        status, reason = "done", None
    return part_record(lines, status, reason, time.monotonic() - start)


def _child(function: Function, place: Place, seconds: float, kept: Path) -> None:
    with kept.open("w", buffering=1) as file:

        def take(line: Line) -> None:
            file.write(json.dumps(line) + "\n")
            print(text_of(line), flush=True)

        try:
            function(Note(take, seconds, place.sizes.left_out), place)
        except Exception as error:
            traceback.print_exc()
            file.write(json.dumps({"error": said(error)}) + "\n")
