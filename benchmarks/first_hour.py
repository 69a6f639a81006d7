"""The first hour of a new user: from a wheel and a folder of photographs to an ONNX file of 8 bits, timed.

    python benchmarks/first_hour.py --photos grocery.tar --weights efficientnet-lite0.pth [--folder DIR]

Builds the wheel of this repository and installs it, with the extra `export`, into a new virtual environment of `DIR`.
Unpacks the photographs, a tar of folders `train` and `test`, and runs `pipeline init` and then each command that the
written configuration names, as a person would type them. At the end it names the class of three test photographs.
Printed: each command and what it said (the export: accuracy, bytes and latency of each format); then how long each took
on the clock. `DIR` is kept: run again, what is finished is not done again.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "photos.yaml"
PREDICTED = 3
"""Photographs whose classes are named at the end: the first of the first classes."""


class Road:
    """Runs commands in a folder, prints what they say, and notes how long each took.

    Args:
        folder: where they run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}

    def run(self, words: Sequence[str], title: str | None = None) -> None:
        """Run a command. Raises SystemExit if it fails.

        Args:
            words: the command and its arguments.
            title: what the table calls it; by default the command itself.
        """
        shown = title or shlex.join(words)
        print(f"$ {shown}", flush=True)
        path = os.pathsep.join([str(self.folder / "venv/bin"), os.environ["PATH"]])
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        start = time.perf_counter()
        done = subprocess.run(words, cwd=self.folder, env={**environment, "PATH": path}, check=False)
        self.seconds[shown] = self.seconds.get(shown, 0.0) + time.perf_counter() - start
        print(f"  -> exit code {done.returncode} after {self.seconds[shown]:.1f} s\n", flush=True)
        if done.returncode != 0:
            raise SystemExit(done.returncode)


def install(road: Road) -> None:
    """Build the wheel, and install it into an environment of the folder, which has nothing else."""
    folder = road.folder
    wheels = ["pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder / "wheel"), str(ROOT)]
    road.run([sys.executable, "-m", *wheels], "pip wheel .")
    road.run([sys.executable, "-m", "venv", "venv"], "python -m venv venv")
    (wheel,) = (folder / "wheel").glob("*.whl")
    python = str(folder / "venv/bin/python")
    road.run([python, "-m", "pip", "install", "--quiet", f"{wheel}[export]"], 'pip install "decant-kd[export]"')


def named_commands(config: Path) -> list[list[str]]:
    """Return the commands that the head of a configuration of `pipeline init` names, in order."""
    head = config.read_text().partition("\ndata:")[0]
    lines = (line.removeprefix("#").strip() for line in head.splitlines())
    return [shlex.split(line) for line in lines if line.startswith("pipeline ")]


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), required=True, help="A tar of split folders.")
@click.option("--weights", type=click.Path(path_type=Path, exists=True), required=True, help="EfficientNet-Lite0's.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work; default: a new temporary folder.")
def main(photos: Path, weights: Path, folder: Path | None) -> None:
    """Time the first hour."""
    folder = (folder or Path(tempfile.mkdtemp(prefix="first-hour-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    road = Road(folder)
    if not (folder / "venv").exists():
        install(road)
    if not (folder / "photos").exists():
        with tarfile.open(photos) as archive:
            archive.extractall(folder / "photos", filter="data")
        shutil.copyfile(weights, folder / "lite0.pth")
    if not (folder / CONFIG).exists():
        road.run(shlex.split("pipeline init photos --teacher tf_efficientnet_lite0 --weights lite0.pth"))
    for command in named_commands(folder / CONFIG):
        road.run(command)
    shown = [next(each.glob("*")) for each in sorted((folder / "photos/test").iterdir())[:PREDICTED]]
    (model,) = {file.parent for file in folder.glob("artifacts/**/small/kd/*/model.json")}
    names = [str(path.relative_to(folder)) for path in (*shown, model)]
    road.run(["pipeline", "predict", *names[:-1], "--model", names[-1], "--top", "3"])
    print("| command | seconds |\n| --- | ---: |")
    for title, seconds in {**road.seconds, "all": sum(road.seconds.values())}.items():
        print(f"| `{title}` | {seconds:.1f} |")


if __name__ == "__main__":
    main()
