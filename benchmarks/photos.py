"""The road of a new user: from photographs and ImageNet weights to a table of students, timed.

    python benchmarks/photos.py --photos grocery.tar --weights efficientnet-lite0.pth [--folder DIR]

Unpacks the photographs to `DIR/photos`, copies the weights to `DIR/weights/` and `configs/photos.yaml` to `DIR`, and
runs there, one after the other, the commands of docs/own-data.md as a person would type them, each a process of its
own. Printed: each command, what it said last, and how long it took on the clock; then a table of these times in
Markdown, with the machine. `DIR` is kept: run again, what is finished is not done again.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import click

CONFIG = Path(__file__).parents[1] / "configs/photos.yaml"
WEIGHTS = "weights/efficientnet-lite0.pth"
"""Where the configuration expects them."""

LINES = 40
"""Of what a command says, at most so many are printed: the last ones."""


BEFORE = ("prepare-data", "check", "train-teacher", "cache-teacher")
AFTER = ("evaluate", "report")
"""The road, but for the students."""


def prepare(folder: Path, photos: Path, weights: Path) -> None:
    """What a person has before the first command."""
    if not (folder / "photos").exists():
        with tarfile.open(photos) as archive:
            archive.extractall(folder / "photos", filter="data")
    (folder / WEIGHTS).parent.mkdir(exist_ok=True)
    shutil.copyfile(weights, folder / WEIGHTS)
    shutil.copyfile(CONFIG, folder / CONFIG.name)


def run(command: str, folder: Path, threads: int) -> float:
    """Run a command in the folder; the seconds that it took. Raises SystemExit if it failed."""
    words = [sys.executable, "-m", "pipeline.cli", *command.split()[1:], "--config", CONFIG.name]
    path = os.pathsep.join([str(CONFIG.parents[1]), os.environ.get("PYTHONPATH", "")])
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(words, cwd=folder, env=environment, text=True, capture_output=True, check=False)
    seconds = time.perf_counter() - start
    said = [f"  {line}" for line in (done.stdout + done.stderr).splitlines()[-LINES:]]
    end = f"  -> exit code {done.returncode} after {seconds:.0f} s\n"
    print("\n".join([f"$ {command} --config {CONFIG.name}", *said, end]), flush=True)
    if done.returncode != 0:
        raise SystemExit(done.returncode)
    return seconds


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), required=True, help="A tar of split folders.")
@click.option("--weights", type=click.Path(path_type=Path, exists=True), required=True, help="EfficientNet-Lite0's.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work; default: a new temporary folder.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--at-once", default=2, show_default=True, help="Students; each has its share of the cores.")
def main(photos: Path, weights: Path, folder: Path | None, seeds: int, at_once: int) -> None:
    """Time the whole road."""
    from pipeline.config import read_config

    folder = folder or Path(tempfile.mkdtemp(prefix="photos-"))
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    prepare(folder, photos, weights)
    times = {"unpacking the photographs": time.perf_counter() - start}
    raw = read_config(CONFIG)
    cores = os.cpu_count() or 1
    for name in BEFORE:
        times[name] = run(f"pipeline {name}", folder, cores)
    students = [
        f"pipeline train-student --student {name} --objectives {objectives} --seed {seed}"
        for name, objectives, seed in product(raw["students"], raw["objectives"], range(seeds))
    ]
    begun = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda command: run(command, folder, max(1, cores // at_once)), students))
    times[f"train-student, {len(students)} runs, {at_once} at once"] = time.perf_counter() - begun
    for name in AFTER:
        times[name] = run(f"pipeline {name}", folder, cores)
    print(f"| command | seconds, {cores} cores of {platform.processor() or platform.machine()} |")
    print("| --- | ---: |")
    for command, seconds in {**times, "all": sum(times.values())}.items():
        print(f"| {command} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
