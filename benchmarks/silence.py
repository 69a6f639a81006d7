"""How long commands are silent: the longest time between two outputs of each, in a log and on a terminal.

    python benchmarks/silence.py [--folder FOLDER] [COMMAND...]

The small experiment of `start_up.py` is made first in FOLDER, or in a temporary folder. Then every command runs there
as its users run it, once with its outputs in a pipe, once on a terminal of its own. What it would find done is removed
before. Printed are seconds of elapsed time: to the end, of the longest silence, from the start on and to the end, and
what was said last before it. COMMAND names some of the rows alone.
"""

from __future__ import annotations

import errno
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click
from start_up import begin

RUN = "--student small --objectives kd"
COMMANDS = {
    "help": "--help",
    "a typo": "check --config typo.yaml",
    "init": "init photographs --output mine.yaml --force",
    "doctor": "doctor",
    "methods": "methods",
    "contract": "contract kd",
    "check": "check",
    "check --json": "check --json",
    "prepare-data": "prepare-data --replace",
    "train-teacher": "train-teacher",
    "cache-teacher": "cache-teacher",
    "train-student": f"train-student {RUN}",
    "train-students": "train-students --seed 1 --seed 2",
    "train-students, 2 workers": "train-students --seed 3 --seed 4 --workers 2",
    "evaluate": "evaluate",
    "report": "report --quiet",
    "export": f"export {RUN} --output shipped",
    "predict": "predict photographs --model runs/students/small/kd/seed-0",
    "inspect": "inspect",
    "inspect --views": "inspect --views views.png",
    "verify": "verify",
    "verify PATH": "verify cache.zarr",
    "dvc-file": "dvc-file",
    "completion": "completion bash",
    "demo": "demo elsewhere --set train.epochs=2 --set teacher_training.epochs=2",
}
MADE = {
    "train-teacher": ("teacher", "cache*.zarr*", "runs"),
    "cache-teacher": ("cache*.zarr*", "runs"),
    "train-student": ("runs",),
    "train-students": ("runs/students/small/kd/seed-[12]*",),
    "train-students, 2 workers": ("runs/students/small/kd/seed-[34]*",),
    "export": ("shipped",),
    "demo": ("elsewhere",),
}
"""What a command is to make anew."""


PROGRAM = (sys.executable, "-c", "from pipeline.cli import main; main()")
WITHOUT = (
    "--help",
    "init",
    "doctor",
    "methods",
    "contract",
    "predict",
    "completion",
    "demo",
    "verify cache",
    "check --config",
)
"""The beginnings of commands without `--config digits.yaml`."""


class Silence(NamedTuple):
    """What was measured of a command.

    Args:
        code: with which it ended.
        end: seconds to its end.
        longest: seconds of the longest silence.
        after: what was said before it.
    """

    code: int
    end: float
    longest: float
    after: str


def listen(command: str, folder: Path, *, terminal: bool) -> Silence:
    """Run a command, and note when it says something."""
    if terminal:
        ours, theirs = pty.openpty()
    else:
        ours, theirs = os.pipe()
    words = [*PROGRAM, *command.split(), *([] if command.startswith(WITHOUT) else ["--config", "digits.yaml"])]
    start = last = time.perf_counter()
    longest, after, said = 0.0, "the start", "the start"
    with subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError as error:  # so Linux ends a terminal whose last process is gone
                if error.errno != errno.EIO:
                    raise
                data = b""
            now = time.perf_counter()
            if now - last > longest:
                longest, after = now - last, said
            last = now
            if not data:
                break
            said = ([line for line in data.decode(errors="replace").split("\n") if line.strip()] or [said])[-1]
    os.close(ours)
    return Silence(running.returncode, last - start, longest, after.split("\x1b[2K")[-1].strip()[:60])


@click.command()
@click.argument("names", nargs=-1)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Where the experiment is, or goes.")
def main(names: tuple[str, ...], folder: Path | None) -> None:
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    with tempfile.TemporaryDirectory() as temporary:
        where = folder or Path(temporary)
        where.mkdir(parents=True, exist_ok=True)
        if not (where / "runs" / "evaluation.json").exists():
            begin(where)
        print(f"{'command':<26} {'':<8} {'end':>6} {'silent':>6}   after")
        for name, command in COMMANDS.items():
            for way in ("log", "terminal"):
                if names and name not in names:
                    continue
                for pattern in MADE.get(name, ()):
                    for path in where.glob(pattern):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                found = listen(command, where, terminal=way == "terminal")
                code = f"   exit code {found.code}" if found.code else ""
                print(f"{name:<26} {way:<8} {found.end:>6.1f} {found.longest:>6.1f}   {found.after}{code}", flush=True)


if __name__ == "__main__":
    main()
