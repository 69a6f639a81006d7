"""Examines the machine: what is installed, how much room and how many threads there are, and what computes."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from pipeline.progress import size
from pipeline.version import DISTRIBUTION, installed_version

TOLD_BY_THEMSELVES = ("torch", "torchvision", "timm", "zarr", "numpy", "dvc")
"""The packages whose version is told by itself."""

ONLY_FASTER = ("numba", "simplejpeg")
"""The packages without which large images are rendered as before, in several times the time."""

SMALL_DISK, NO_DISK, SMALL_SHARED = 10e9, 1e9, 1e9
"""Bytes: a warning below the first, a problem below the second; a warning below the third in shared memory."""

GIT_SECONDS = 20
"""How long git may take to compare a repository: large ones on slow disks take minutes."""

SHARED = Path("/dev/shm")
DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Finding:
    """Describes one thing that was examined.

    Args:
        name: of the thing.
        state: `problem` where commands will fail, `warning` where they may, or will be slow.
        text: what was found.
        fix: what to do; None where nothing is to be done.
    """

    name: str
    state: Literal["ok", "warning", "problem"]
    text: str
    fix: str | None = None


def without_torch() -> Iterator[Finding]:
    """Examine all that needs no torch, in half a second."""
    yield _python()
    yield Finding("Decant", "ok", installed_version() or "a checkout that is not installed")
    yield from _packages()
    yield _extras()
    yield _threads()
    yield _disk(Path())
    if SHARED.exists():
        yield _shared_memory()
    yield _git()
    yield _dvc()


def with_torch() -> Iterator[Finding]:
    """Examine what torch computes on, and in which precision."""
    try:
        import torch

        from pipeline.models.device import choose_device, choose_precision

        device = choose_device("auto")
        precision = str(choose_precision("auto", device)).removeprefix("torch.")
    except Exception as error:  # whatever a broken installation raises
        yield Finding(
            "device", "problem", f"torch cannot be used: {error}", "install torch again: pytorch.org says how"
        )
        return
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        count = torch.cuda.device_count()
        yield Finding("device", "ok", f"{count} x {torch.cuda.get_device_name(device)}, {size(memory)} of memory")
    elif DRIVER.exists():
        fix = "install a torch with CUDA that fits the driver: pytorch.org says how"
        yield Finding("device", "problem", "there is an NVIDIA driver, and this torch finds no GPU", fix)
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        fix = "train students here, and cache large teachers where there is a GPU"
        yield Finding("device", "ok", f"{device.type}, {capability}, {torch.get_num_threads()} threads; no GPU", fix)
    yield Finding("precision", "ok", f"`auto` is {precision} here")


def _python() -> Finding:
    found = platform.python_version()
    if tuple(map(int, found.split(".")[:2])) < (3, 11):
        return Finding("Python", "problem", found, "install Python 3.11 or later")
    return Finding("Python", "ok", found)


def _packages() -> Iterator[Finding]:
    """Every package that Decant needs: those that are named, and one line for the others."""
    if not requires_of():
        fix = "pip install --editable ."
        yield Finding("packages", "warning", "cannot be compared: this checkout is not installed", fix)
        return
    fine, told = 0, set()
    for text in requires_of():
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        found = _version(needed.name)
        told.add(needed.name)
        if found is None or not needed.specifier.contains(found, prereleases=True):
            got = "is not installed" if found is None else f"{found}, and {needed.specifier} is needed"
            fix = f"pip install '{needed.name}{needed.specifier}'"
            if needed.name in ONLY_FASTER:
                yield Finding(needed.name, "warning", f"{got}: large images are rendered slowly", fix)
            else:
                yield Finding(needed.name, "problem", got, fix)
        elif needed.name in TOLD_BY_THEMSELVES:
            yield Finding(needed.name, "ok", found)
        else:
            fine += 1
    yield Finding("packages", "ok", f"{fine} others are installed as needed")


def requires_of() -> list[str]:
    """Return the requirements of Decant as pip knows them; none of a checkout that is not installed."""
    try:
        return requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _extras() -> Finding:
    """Which extras are installed as a whole; `dev` is for those who work on Decant."""
    extras: dict[str, list[str]] = {}
    for text in requires_of():
        if extra := re.search(r"extra == ['\"]([^'\"]+)['\"]", text):
            extras.setdefault(extra[1], []).append(Requirement(text).name)
    there = {name for name, packages in extras.items() if all(map(_version, packages))} - {"dev"}
    absent = sorted(extras.keys() - there - {"dev"})
    fix = f"if you want them: pip install '{DISTRIBUTION}[{','.join(absent)}]'" if absent else None
    return Finding("extras", "ok", f"{', '.join(sorted(there)) or 'none'}; without {', '.join(absent) or 'none'}", fix)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads() -> Finding:
    cores, asked = _cores(), os.environ.get("OMP_NUM_THREADS", "")
    text = f"{cores} cores, OMP_NUM_THREADS {asked or 'is not set'}"
    if asked.isdigit() and int(asked) > cores:
        return Finding("threads", "warning", text, f"set it to {cores} at most: threads that wait are slow")
    if asked.isdigit() and int(asked) < cores:
        return Finding("threads", "warning", text, f"unset it: commands compute on {asked} of the {cores} cores")
    return Finding("threads", "ok", text)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{size(free)} free in {folder.absolute()}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", "problem", f"{folder.absolute()} cannot be written to", "run in a folder of your own")
    fix = "free space, or name another disk in data.path, store.path, runs.path; `pipeline check` says what is needed"
    state: Literal["ok", "warning", "problem"] = "ok"
    if free < SMALL_DISK:
        state = "problem" if free < NO_DISK else "warning"
    return Finding("disk", state, text, None if state == "ok" else fix)


def _shared_memory() -> Finding:
    free = shutil.disk_usage(SHARED).free
    fix = "in a container: --shm-size 2g; or decode in no other processes: train.workers: 0"
    few = free < SMALL_SHARED
    return Finding("shared memory", "warning" if few else "ok", f"{size(free)} free", fix if few else None)


def _above(name: str) -> Path | None:
    """The nearest folder from here up that has something of this name."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / name).exists()), None)


def _git() -> Finding:
    if shutil.which("git") is None:
        return Finding("git", "warning", "is not installed", "install it, if DVC shall run the stages")
    root = _above(".git")
    if root is None:
        return Finding("git", "warning", "this folder is in no repository", "git init, if DVC shall run the stages")
    command = ["git", "-C", str(root), "status", "--porcelain"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GIT_SECONDS)
    except subprocess.TimeoutExpired:
        text = f"repository {root}, of which git says nothing within {GIT_SECONDS} s"
        return Finding("git", "warning", text, "keep large folders out of it by .gitignore")
    if done.returncode:
        said = done.stderr.strip().partition("\n")[0]
        return Finding("git", "warning", f"the repository {root} cannot be read: {said}", "git says what to do")
    changed = len(done.stdout.splitlines())
    return Finding("git", "ok", f"repository {root}, {changed or 'no'} files that are not committed")


def _dvc() -> Finding:
    root = _above(".dvc")
    if root is None:
        fix = "dvc init (or dvc init --no-scm), if it shall run the stages; the commands need no DVC"
        return Finding("DVC", "warning", "this folder is in no project of DVC", fix)
    stages = Path("dvc.yaml").exists()
    write = None if stages else "pipeline dvc-file --config FILE --output dvc.yaml writes it"
    return Finding("DVC", "ok", f"project {root}, {'a' if stages else 'no'} dvc.yaml here", write)
