"""Says what it is measured on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gpu_parts.record import Note
from gpu_parts.running import Place
from pipeline.version import installed_version

ROOT = Path(__file__).resolve().parents[2]


def machine(note: Note, place: Place) -> None:
    """Take down device, driver, torch and processor. Raises RuntimeError if there is no GPU where one is needed."""
    if place.cuda and not torch.cuda.is_available():
        raise RuntimeError("there is no GPU that torch can use: --smoke tries all of it on a CPU")
    for name, value in {**_software(), **(_gpu() if place.cuda else {"device": "cpu"})}.items():
        note.fact(name, value)


def _software() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load": f"{os.getloadavg()[0]:.1f} when it began",
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numba": _version("numba"),
        "simplejpeg": _version("simplejpeg"),
        "decant": installed_version() or "a checkout",
        "commit": _said("git", "-C", str(ROOT), "rev-parse", "HEAD"),
    }


def _gpu() -> dict[str, Any]:
    seen = torch.cuda.get_device_properties(0)
    return {
        "device": seen.name,
        "memory": f"{seen.total_memory / 2**30:.0f} GiB",
        "capability": f"{seen.major}.{seen.minor}",
        "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0],
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "cublas workspaces": os.environ.get("CUBLAS_WORKSPACE_CONFIG", "torch's own"),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not there"


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", file.read_text()) if file.exists() else None
    return found[1].strip() if found else platform.processor() or "unknown"


def _said(command: str, *arguments: str) -> str:
    if shutil.which(command) is None:
        return "unknown"
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False, timeout=10)
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else "unknown"
