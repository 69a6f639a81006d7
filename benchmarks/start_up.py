"""How soon commands answer: processor time, and the time to their first line.

    python benchmarks/start_up.py [--rounds 5] [--folder FOLDER] [COMMAND...]

A small experiment on scikit-learn's digits is made first in FOLDER, or in a temporary folder: one epoch each. Then
every command runs as its users run it, in a process of its own, once before the rounds that count. Printed are seconds,
median over rounds: processor time of user and system; elapsed time to the first line of its output, and to its end.
Elapsed times are longer on a busy machine. COMMAND names some of the rows alone.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

CONFIG = """\
data: {path: data.h5, source: {name: digits}, limit: 200, holdout: {count: 50}}
teacher: {model: cifar_resnet8, weights: teacher/teacher.safetensors, input_size: 8}
teacher_training: {epochs: 1}
views: {count: 2, operations: [{name: pad-crop, padding: 1}]}
store: {path: cache.zarr}
students: {small: {model: cifar_resnet8, input_size: 8, options: {widths: [16, 16, 16]}}}
objectives: {kd: [{name: hard-label, weight: 0.1}, {name: kd, weight: 0.9}]}
train: {epochs: 1}
runs: {path: runs}
"""
STAGES = (
    "prepare-data",
    "train-teacher",
    "cache-teacher",
    "train-student --student small --objectives kd",
    "evaluate",
    "report --quiet",
)
COMMANDS = {
    "help": "--help",
    "no configuration": "check --config none.yaml",
    "a typo": "check --config typo.yaml",
    "check": "check --no-time",
    "methods": "methods",
    "methods kd": "methods kd",
    "inspect": "inspect",
    "report": "report",
    "dvc-file": "dvc-file",
    "prepare-data": "prepare-data",
    "train-student": "train-student --student small --objectives kd",
    "verify": "verify cache.zarr",
    "doctor": "doctor",
    "init": "init photographs --output mine.yaml --force",
}


def begin(folder: Path) -> None:
    """Make the experiment, unless it is there."""
    (folder / "digits.yaml").write_text(CONFIG)
    (folder / "typo.yaml").write_text(CONFIG.replace("epochs: 1}\nruns", "epoch: 1}\nruns"))
    if not (folder / "photographs").exists():
        from PIL import Image

        for place in range(40):
            file = folder / "photographs" / ("dark", "light")[place % 2] / f"{place}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (32, 32), (place, 255 - place)[place % 2]).save(file)
    for stage in STAGES:
        subprocess.run(words(stage), cwd=folder, check=True, capture_output=True)


def words(command: str) -> list[str]:
    program = [sys.executable, "-c", "from pipeline.cli import main; main()"]
    name, *arguments = command.split()
    plain = name in ("--help", "methods", "verify", "doctor", "init") or "--config" in arguments
    return [*program, name, *arguments, *([] if plain else ["--config", "digits.yaml"])]


def once(command: str, folder: Path) -> tuple[float, float, float]:
    """Processor time, time to the first line, and time to the end."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen(words(command), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = time.perf_counter() - start
        process.stdout.read()
    end, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, first, end


@click.command()
@click.argument("names", nargs=-1)
@click.option("--rounds", default=5, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Where the experiment is, or goes.")
def main(names: tuple[str, ...], rounds: int, folder: Path | None) -> None:
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    with tempfile.TemporaryDirectory() as temporary:
        where = folder or Path(temporary)
        where.mkdir(parents=True, exist_ok=True)
        begin(where)
        print(f"{'command':<20} {'processor':>10} {'first line':>10} {'end':>6}   seconds, median of {rounds}")
        for name, command in COMMANDS.items():
            if names and name not in names:
                continue
            once(command, where)
            measured = [once(command, where) for _ in range(rounds)]
            values = [statistics.median(each) for each in zip(*measured, strict=True)]
            print(f"{name:<20} {values[0]:>10.2f} {values[1]:>10.2f} {values[2]:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
