"""Time and memory of the commands against the number of samples N and of views V: what grows, and what does not.

    python benchmarks/growth.py [--samples 1000 --samples 10000 --samples 100000 --samples 1000000] [--views 1]
    python benchmarks/growth.py --samples 10000 --views 1 --views 4 --views 16

Images of 8 x 8 pixels, a teacher of a few thousand weights, logits and embeddings in float16: whatever is left to
measure is Decant's own. Each command runs in a process of its own. `train-student` is ended at its first step, and
begins with `--verify sample`; a whole epoch is the last column. `pack` writes the file with h5py and is not measured.

Printed for each N and V: processor seconds and peak resident memory (MB, with the pages of mapped files) of each
command, and the bytes that an epoch reads of the store, over the least that there is to read. Needs 1 GB of disk for a
million samples.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import h5py
import numpy as np

SIZE, CLASSES, TEST = 8, 10, 100
CONFIG = """\
data: {{path: data.h5}}
teacher: {{model: cifar_resnet8, weights: teacher.safetensors, input_size: 8, options: {{widths: [8, 8, 8]}},
  precision: float32, micro_batch: 1024, device: cpu}}
views: {{count: {views}, operations: [{{name: horizontal-flip}}]}}
signals: {{logits: {{encoding: float16}}, embedding: {{encoding: float16}}, features: null}}
store: {{path: cache.zarr}}
students: {{small: {{model: cifar_resnet8, input_size: 8, options: {{widths: [8, 8, 8]}}}}}}
objectives: {{kd: [{{name: kd}}]}}
train: {{epochs: 1, batch_size: 1024, precision: float32, device: cpu}}
runs: {{path: runs}}
"""
COMMANDS = {
    "cache-teacher": ["cache-teacher", "--config", "growth.yaml"],
    "check": ["check", "--config", "growth.yaml"],
    "inspect": ["inspect", "cache.zarr"],
    "verify": ["verify", "cache.zarr"],
}
RUN = "from pipeline.cli import main; main()"
HERE = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import growth"


class Cost(NamedTuple):
    """Holds what a process took: processor seconds, bytes of memory at its peak, bytes that it read from disks."""

    seconds: float
    memory: int
    read: int


def pack(count: int) -> None:
    """Write a packed data set of random images to the working directory, a block at a time, and a teacher."""
    from pipeline.models import build_network

    random = np.random.default_rng(0)
    with h5py.File("data.h5", "w") as file:
        for split, rows in (("train", count), ("test", TEST)):
            group = file.create_group(split)
            images = group.create_dataset("images", (rows, SIZE, SIZE, 3), np.uint8)
            for start in range(0, rows, 100_000):
                end = min(rows, start + 100_000)
                images[start:end] = random.integers(0, 256, (end - start, SIZE, SIZE, 3), dtype=np.uint8)
            group["labels"] = np.arange(rows) % CLASSES
            group["ids"] = [str(number) for number in range(rows)]
    build_network("cifar_resnet8", CLASSES, input_size=SIZE, options={"widths": [8, 8, 8]}, seed=0).save(
        Path("teacher.safetensors")
    )


def cost_of(code: str, arguments: Sequence[str], folder: Path) -> Cost:
    """Run a process of Python to its end, and return what it took. Raises CalledProcessError if it fails."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=folder, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # so that nobody waits for it once more
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments, (folder / "log").read_text())
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, usage.ru_inblock * 512)


def start_of_training() -> None:
    """Train in the working directory until the first step is done."""
    from pipeline.experiment.runs import RunName
    from pipeline.experiment.source import ConfigFile
    from pipeline.progress import Silent
    from stages import train_student

    class Begun(BaseException):
        pass

    class Watch(Silent):
        def begin(self, what: str, total: int, unit: str, done: int = 0) -> None:
            self.unit = unit

        def advance(self, amount: int, note: str = "") -> None:
            if self.unit == "steps":
                raise Begun

    train_student.Lines = Watch  # type: ignore[misc,assignment,attr-defined]
    try:
        train_student.run(
            ConfigFile(Path("growth.yaml")), RunName("small", "kd"), verify="sample", replace=False, wait=False
        )
    except Begun:
        return
    raise AssertionError("there was no step")


def from_disk(folder: Path) -> None:
    """Let the system forget the pages of all files of a folder: what is read next comes from the disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def least_bytes(folder: Path, views: int) -> int:
    """The images, and what the store has of the logits of one view: what an epoch of KD cannot do without."""
    files = [file for file in (folder / "cache.zarr").rglob("*") if file.is_file() and "logits" in file.as_posix()]
    with h5py.File(folder / "data.h5") as file:
        images = file["train/images"].nbytes
    return int(images + sum(file.stat().st_size for file in files) / views)


def measured(folder: Path, count: int, views: int) -> dict[str, Cost]:
    """What each command takes with so many samples and views."""
    cost_of(f"{HERE}; growth.pack({count})", [], folder)  # apart: a process begins with the memory of its parent
    (folder / "growth.yaml").write_text(CONFIG.format(views=views))
    costs = {name: cost_of(RUN, arguments, folder) for name, arguments in COMMANDS.items()}
    costs["start of training"] = cost_of(f"{HERE}; growth.start_of_training()", [], folder)
    from_disk(folder)
    student = ["train-student", "--config", "growth.yaml", "--student", "small", "--objectives", "kd"]
    costs["an epoch"] = cost_of(RUN, [*student, "--verify", "sample"], folder)
    return costs


@click.command()
@click.option("--samples", "counts", multiple=True, type=click.IntRange(1), default=(1000, 10_000, 100_000, 1_000_000))
@click.option("--views", "numbers", multiple=True, type=click.IntRange(1), default=(1,))
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="On a disk, for what is read of it.")
def main(counts: Sequence[int], numbers: Sequence[int], folder: Path | None) -> None:
    """Print the tables."""
    names = [*COMMANDS, "start of training", "an epoch"]
    print(f"| samples x views | {' | '.join(names)} | read in the epoch |")
    print(f"| --- |{' ---: |' * (len(names) + 1)}")
    for count in counts:
        for views in numbers:
            with tempfile.TemporaryDirectory(dir=folder) as name:
                costs = measured(Path(name), count, views)
                read, least = costs["an epoch"].read, least_bytes(Path(name), views)
            cells = [f"{cost.seconds:.1f} s, {cost.memory / 1e6:.0f} MB" for cost in costs.values()]
            row = f"| {count:,} x {views} | {' | '.join(cells)} | {read / 1e6:.1f} of {least / 1e6:.1f} MB |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
