"""How a cache came about: recorded, never hashed."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import CacheCorrupt
from pipeline.store.workspace import Workspace
from pipeline.untrusted import parse_json

RUNS = "runs.json"
"""The workspace's note of what worked on it."""

PACKAGES = ("decant-kd", "numpy", "timm", "torchvision", "zarr")


class Runs:
    """The runs that worked on a store, noted in its workspace until it is published."""

    def __init__(self, workspace: Workspace) -> None:
        """Read what earlier runs left."""
        self._workspace = workspace
        self._runs = noted_runs(workspace.note(RUNS))

    @contextmanager
    def record(self, device: torch.device, done: int) -> Iterator[dict[str, Any]]:
        """Record a run that begins after `done` units. Its caller sets `views`; one that fails has none."""
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
        """All runs, and the rate over those that were timed."""
        return provenance_of(self._runs)

    def _save(self) -> None:
        self._workspace.keep_note(RUNS, json.dumps(self._runs))


def provenance_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says of the runs that `RUNS` notes."""
    timed = [run for run in runs if run.get("views") and run.get("seconds")]
    seconds = sum(run["seconds"] for run in timed)
    views = sum(run["views"] for run in timed)
    rate = round(views / seconds, 1) if seconds else None
    return {"runs": runs, "seconds": round(seconds, 3), "views_per_second": rate}


def noted_runs(note: bytes | None) -> list[dict[str, Any]]:
    """The runs in the note `RUNS`. Raises CacheCorrupt if it is none."""
    try:
        found: list[dict[str, Any]] = parse_json(note or b"[]")
        check_runs(found)
        return found
    except ValueError as error:
        raise CacheCorrupt(
            "the record of earlier runs cannot be read",
            where=RUNS,
            got=error,
            fix="delete the file: only when and how long they ran is lost",
        ) from None


def check_runs(runs: Any) -> None:
    """Raise ValueError unless these are runs as they are recorded."""
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise ValueError("not a list of runs")
    for run in runs:
        numbers, texts = (run.get("views"), run.get("seconds")), (run.get("started"), run.get("device"))
        if not all(_amount(number) for number in numbers) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"a run of {numbers!r:.60} views and seconds, {texts!r:.60}")
        if not isinstance(run.get("versions"), dict):
            raise ValueError("a run without versions")


def check_provenance(provenance: Mapping[str, Any]) -> None:
    """Raise ValueError unless this is as `provenance_of` writes it."""
    check_runs(provenance.get("runs"))
    if not all(_amount(provenance.get(name)) for name in ("seconds", "views_per_second")):
        raise ValueError("seconds and views per second are not numbers")


def _amount(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0)


def versions() -> dict[str, str]:
    """The versions of what computes and writes."""
    found = {"python": platform.python_version(), "torch": torch.__version__}  # with the kind of its build
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """What people call the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    kind = _processor() or platform.processor() or platform.machine()
    return f"{kind}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def _processor() -> str | None:
    """The model of the processor, which Python does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
