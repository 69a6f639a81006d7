"""What DVC costs beside a large teacher cache: hashing, disk, and the seconds of `dvc repro` on a finished tree.

    python benchmarks/dvc_store.py [--gigabytes 10] [--files 5000] [--tracked hardlink] [--folder DIR] [--push]

A store with the layout of an ImageNet cache (ResNet-50's signals, the files and sizes of `StoreLayout`) and
random content is made in a temporary folder below `--folder`; a stage hands it to DVC, and further stages depend on
it as students do: on its `.fingerprint`, or with `--whole` on all of it. `--tracked` names DVC's `cache.type`, or
`pointer`: DVC tracks `.fingerprint` alone. Files are dropped from the page cache before they are hashed. Printed are
elapsed seconds and, of more use on a busy machine, those of the processor; disk is what `du` counts (hard links
once, blocks that reflinks share twice) and what the file system says. Everything made is deleted.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from pipeline.store.format.layout import CacheExtent, StoreLayout, make_layout
from pipeline.store.format.signal_sections import SignalsIdentity
from pipeline.yaml_text import to_yaml

SIGNALS = {"logits": [1000], "embedding": [2048], "features": {"block3": [1024, 4, 4], "block4": [2048, 4, 4]}}
ROUNDS, FEWEST_BLOCKS = 5, 16
DVC = Path(sys.executable).with_name("dvc")

Seconds = tuple[float, float]
"""Elapsed, and of the processor."""


def planned(total: int, files: int) -> StoreLayout:
    """A store of about so many bytes in about so many files."""
    entry = {"encoding": "float16"}
    said = {
        "logits": {"shape": SIGNALS["logits"], **entry},
        "embedding": {"shape": SIGNALS["embedding"], **entry},
        "features": {tap: {"shape": shape, **entry} for tap, shape in SIGNALS["features"].items()},
        "extras": {},
        "grid": 4,
        "filter": "mean",
        "head": {"shape": [1000, 2048], "linear": True},
    }
    signals = SignalsIdentity.model_validate(said)
    one = make_layout(signals, CacheExtent(samples=1, views=1, parameters=5, micro_batch=1, rows_per_block=1))
    units = files // len(one.arrays)
    views = max(1, units // FEWEST_BLOCKS)
    blocks = units // views
    rows = max(1, total // (blocks * views) // sum(one.bytes_per_view.values()))
    extent = CacheExtent(rows * blocks, views, parameters=5, micro_batch=rows, rows_per_block=rows)
    return make_layout(signals, extent)


def write_store(folder: Path, layout: StoreLayout) -> None:
    """Files of the planned names and sizes, each different from all others."""
    noise = np.random.default_rng(0).bytes(max(spec.chunk_bytes for spec in layout.arrays.values()) + 4)
    (folder / "head").mkdir(parents=True)
    for unit, sizes in layout.chunk_files():
        for name, size in sizes.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(f"{unit} {name}"[:size].encode().ljust(min(size, 64)))
                file.write(noise[: max(0, size - 64)])
                file.flush()
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    (folder / ".fingerprint").write_text("0" * 64 + "\n")


def stages(students: int, pointer: bool, whole: bool) -> dict[str, object]:
    tracked: object = "store.zarr"
    if pointer:
        tracked = {"store.zarr/.fingerprint": {"cache": False, "persist": True}}
    needed = "store.zarr" if whole else "store.zarr/.fingerprint"
    made: dict[str, object] = {"store": {"cmd": "mv made store.zarr", "outs": [tracked]}}
    for i in range(students):
        made[f"student-{i}"] = {"cmd": f"echo {i} > student-{i}", "deps": [needed], "outs": [f"student-{i}"]}
    return {"stages": made}


def disk(*paths: Path) -> float:
    """GB of blocks, hard links counted once."""
    there = [str(path) for path in paths if path.exists()]
    out = subprocess.run(["du", "-sc", "--block-size=1", *there], check=True, capture_output=True, text=True).stdout
    return int(out.splitlines()[-1].split()[0]) / 1e9


@click.command()
@click.option("--gigabytes", default=10.0, show_default=True)
@click.option("--files", default=5000, show_default=True)
@click.option("--students", default=18, show_default=True, help="Stages that depend on the store.")
@click.option("--tracked", type=click.Choice(["hardlink", "reflink", "copy", "pointer"]), default="hardlink")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=None, help="Where to work.")
@click.option("--whole", is_flag=True, help="Students depend on the whole store.")
@click.option("--push", is_flag=True, help="Push to a local remote and pull back: takes the store's size once more.")
def main(
    gigabytes: float, files: int, students: int, tracked: str, folder: Path | None, whole: bool, push: bool
) -> None:
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="dvc-store-", dir=folder))
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(work / "site")}
    project = work / "project"
    project.mkdir()

    def dvc(*arguments: str) -> Seconds:
        start, before = time.perf_counter(), os.times()
        done = subprocess.run([str(DVC), *arguments], cwd=project, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        elapsed, after = time.perf_counter() - start, os.times()
        return elapsed, sum(after[2:4]) - sum(before[2:4])

    def report(what: str, *arguments: str, rounds: int = ROUNDS) -> None:
        """Median [least, most] over rounds."""
        figures = [f"{what:<42}"]
        for values in zip(*(dvc(*arguments) for _ in range(rounds)), strict=True):
            spread = f" [{min(values):.1f}, {max(values):.1f}]" if rounds > 1 else ""
            figures.append(f"{statistics.median(values):.1f} s{spread}".ljust(24))
        print(*figures, flush=True)

    def free() -> float:
        return shutil.disk_usage(work).free / 1e9

    try:
        layout = planned(int(gigabytes * 1e9), files)
        of = "all of it" if whole else "its fingerprint"
        size = f"{layout.total_bytes / 1e9:.1f} GB in {layout.files:,} files"
        print(f"{size}, tracked: {tracked}, {students} students of {of}")
        before = free()
        write_store(project / "made", layout)
        (project / "dvc.yaml").write_text(to_yaml(stages(students, tracked == "pointer", whole)))
        dvc("init", "--no-scm", "-q")
        if tracked != "pointer":
            dvc("config", "cache.type", tracked)
        store, cache = project / "store.zarr", project / ".dvc" / "cache"
        alone, left = disk(project / "made"), free()
        print(f"{'':<42} {'elapsed':<24} processor")
        report("dvc repro store, the first time", "repro", "store", rounds=1)
        after = disk(store, cache)
        report("dvc repro, the students for the first time", "repro", rounds=1)
        report("dvc repro, nothing to do", "repro")
        report("dvc repro student-0, nothing to do", "repro", "student-0")
        report("dvc status", "status")
        report("dvc --version", "--version")
        print(f"disk: the store {alone:.2f} GB, with DVC's cache {after:.2f} GB by du,", end=" ")
        print(f"{before - left:.2f} and {before - free():.2f} GB by the file system")
        if push:
            dvc("remote", "add", "-d", "here", str(work / "remote"))
            report("dvc push", "push", rounds=1)
            report("dvc push, nothing to do", "push")
            print(f"disk: the remote {disk(work / 'remote'):.2f} GB")
            if tracked != "pointer":
                shutil.rmtree(store)
                shutil.rmtree(cache)
                report("dvc pull", "pull", rounds=1)
                print(f"disk: pulled, with DVC's cache {disk(store, cache):.2f} GB by du")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
