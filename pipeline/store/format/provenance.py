"""Records how a cache was made. This is never hashed."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import CacheCorrupt
from pipeline.store.workspace import Workspace
from pipeline.untrusted import parse_json

if TYPE_CHECKING:  # torch takes seconds, and provenance is also read
    import torch

RUNS = "runs.json"
"""The note in a workspace with the runs that worked on it."""

PACKAGES = ("decant-kd", "numba", "numpy", "pillow", "simplejpeg", "timm", "torchvision", "zarr")


class Runs:
    """Records the runs that work on a store, in a note of its workspace.

    Args:
        workspace: must be held; the runs that are noted there are read.

    Raises CacheCorrupt if the note cannot be read.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._runs = noted_runs(workspace.note(RUNS))

    @contextmanager
    def record(self, device: torch.device, done: int) -> Iterator[dict[str, Any]]:
        """Record a run from here to the end of the context; yield its record.

        Args:
            device: of the teacher.
            done: units that were finished before.

        The caller sets `views`; a run that fails has none.
        """
        run: dict[str, Any] = {
            "units_before": done,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": device_name(device),
            "versions": versions(),
            "views": None,
            "seconds": None,
        }
        self._runs.append(run)
        self._save()
        start = time.perf_counter()
        try:
            yield run
        finally:
            run["seconds"] = max(0.0, round(time.perf_counter() - start, 3))
            self._save()

    def provenance(self) -> dict[str, Any]:
        """Return all runs, with their time and the rate over those that have one."""
        return provenance_of(self._runs)

    def _save(self) -> None:
        self._workspace.keep_note(RUNS, json.dumps(self._runs))


def provenance_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a manifest holds of the `runs`: the runs, their seconds in all, and views per second."""
    timed = [run for run in runs if run.get("views") and run.get("seconds")]
    seconds = sum(run["seconds"] for run in timed)
    views = sum(run["views"] for run in timed)
    rate = round(views / seconds, 1) if seconds else None
    return {"runs": runs, "seconds": round(seconds, 3), "views_per_second": rate}


def noted_runs(note: bytes | None) -> list[dict[str, Any]]:
    """Return the runs in the note `RUNS`.

    Args:
        note: its content; None for none.

    Raises CacheCorrupt if it is not valid.
    """
    try:
        found: list[dict[str, Any]] = parse_json(note or b"[]")
        require_runs(found)
        return found
    except ValueError as error:
        raise CacheCorrupt(
            "the record of earlier runs cannot be read",
            where=RUNS,
            got=error,
            fix="delete the file: only when and how long they ran is lost",
        ) from None


def require_runs(runs: Any) -> None:
    """Raise ValueError unless `runs` has the form in which runs are recorded."""
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise ValueError("not a list of runs")
    for run in runs:
        numbers, texts = (run.get("views"), run.get("seconds")), (run.get("started"), run.get("device"))
        if not all(_amount(number) for number in numbers) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"a run of {numbers!r:.60} views and seconds, {texts!r:.60}")
        if not isinstance(run.get("versions"), dict):
            raise ValueError("a run without versions")


def require_provenance(provenance: Mapping[str, Any]) -> None:
    """Raise ValueError unless `provenance` has the form that `provenance_of` returns."""
    require_runs(provenance.get("runs"))
    if not all(_amount(provenance.get(name)) for name in ("seconds", "views_per_second")):
        raise ValueError("seconds and views per second are not numbers")


def _amount(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decode, compute and write."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    """Found once in a process: what is installed is looked up in files."""
    import torch
    from PIL import features

    found = {"python": platform.python_version(), "torch": torch.__version__}  # with the kind of its build
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    # simplejpeg brings a libjpeg-turbo of its own, which its version stands for.
    if (decoder := features.version("libjpeg_turbo")) is not None:
        found["libjpeg-turbo of pillow"] = decoder
    return found


def device_name(device: torch.device) -> str:
    """Return the name of a device: of the GPU, or of the processor with its capability and threads."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    kind = _processor() or platform.processor() or platform.machine()
    return f"{kind}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def _processor() -> str | None:
    """Return the model of the processor, which Python does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
