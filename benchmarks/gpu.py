"""All questions that only a GPU can answer, in less than eight minutes, without a network: `make bench-gpu`.

    python benchmarks/gpu.py                     # on the first GPU; results in benchmarks/results/<device>.json
    python benchmarks/gpu.py --part step-cost    # one part, or several; the others of the file stay
    python benchmarks/gpu.py --smoke             # tries all of it on a CPU, with tiny networks, in half a minute

Parts, their questions and their deadlines are in `gpu_parts/parts.py`. Each runs in a process of its own, which is
stopped at its deadline: what it measured until then is kept, and the next one goes on, as after an error. The file is
written after every part. What a part leaves out is in the file, with the reason. Images are made up, networks have
random weights: nothing is downloaded. benchmarks/README.md says what a machine without a network needs.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pipeline.allocator import fix_workspaces, keep_freed_memory

fix_workspaces()  # before torch is imported
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # whoever asks for a GPU here would keep parts from it

import torch  # noqa: E402
from gpu_parts.machine import machine  # noqa: E402
from gpu_parts.parts import PARTS, Part  # noqa: E402
from gpu_parts.record import Results, part_record  # noqa: E402
from gpu_parts.running import Place, apart, function_of, here  # noqa: E402
from gpu_parts.sizes import FULL, SMOKE  # noqa: E402

from pipeline.models.pretrained import timm_library  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
RESULTS, TRIED = ROOT / "benchmarks" / "results", ROOT / "build" / "bench-gpu"
SECONDS = 470.0
"""Of all parts together; one that would begin later is left out."""

AT_LEAST = 5.0
"""Seconds that are worth beginning a part."""

PATIENT = 20
"""So many times as long may parts take that are only tried: the machine may be busy."""


@click.command()
@click.option("--smoke", is_flag=True, help="Try all parts on a CPU, as small as they can be.")
@click.option("--part", "chosen", multiple=True, type=click.Choice([part.name for part in PARTS]))
@click.option("--results", type=click.Path(file_okay=False, path_type=Path), help="Folder of the results.")
def main(smoke: bool, chosen: tuple[str, ...], results: Path | None) -> None:
    """Measure, and write the results of this device."""
    keep_freed_memory()
    timm_library()  # once, and not in each part's process
    parts = [part for part in PARTS if part.name in chosen or not chosen]
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
        place = Place(Path(folder), SMOKE if smoke else FULL, torch.device("cpu" if smoke else "cuda"))
        path, failed = measure(parts, place, results or (TRIED if smoke else RESULTS))
    print(f"results: {path}")
    if failed:
        raise click.ClickException(f"parts that failed: {', '.join(failed)}; the results of the others are kept")


def measure(parts: Sequence[Part], place: Place, folder: Path, forked: bool = True) -> tuple[Path, list[str]]:
    """Run parts and write their results; the file, and the names of those that failed.

    Args:
        parts: in this order.
        place: the device and the sizes.
        folder: of the results.
        forked: whether each runs in a process of its own.

    Raises ClickException if the device is not there.
    """
    run, longer = (apart if forked else here), 1 if place.sizes is FULL else PATIENT
    end = time.monotonic() + SECONDS * longer
    found = run(machine, place, 30 * longer)
    if found["status"] != "done":
        raise click.ClickException(str(found["reason"]))
    facts: dict[str, Any] = found["facts"] | {"date": found["date"]}
    kept = Results(folder / f"{slug(facts['device'])}.json", facts, smoke=place.sizes is not FULL)
    failed = []
    for part in parts:
        left = end - time.monotonic()
        if left < AT_LEAST:
            record = part_record([], "skipped", f"{left:.0f} s were left of {SECONDS:.0f}", 0)
        else:
            print(f"{part.name}: {part.question}", flush=True)
            record = run(function_of(part), place, min(part.seconds * longer, left))
        kept.add(part.name, record)
        failed += [part.name] if record["status"] == "failed" else []
        print(f"{part.name}: {record['status']} after {record['seconds']} s {record['reason'] or ''}", flush=True)
    return kept.path, failed


def slug(device: str) -> str:
    """The name of a device as that of a file."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


if __name__ == "__main__":
    main()
