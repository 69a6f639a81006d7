"""Processes of their own for tests that kill or need one, in milliseconds: the import of torch and timm takes seconds.

They are forked from a process that imported what is not ours, and nothing of ours: itself forked from pytest's before
that imports anything of ours, or, where that is too late, started when the first of them begins.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import io
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NoReturn

import pytest

IMPORTED = (
    *("h5py", "jinja2", "matplotlib.figure", "numpy", "rich.console", "safetensors.torch", "scipy.optimize", "zarr"),
    *("click", "distributed", "google_crc32c", "pydantic", "ruamel.yaml", "timm", "torch", "torchvision", "xxhash"),
)
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(list(IMPORTED))


def begin_process(function: Callable[..., object], *arguments: Any, log: Path) -> ForkServerProcess:
    """Start a process that calls a function of a module, here and with this environment, and computes in one thread.

    What it prints is in `log`.
    Its exit code is that of Python after the same call: 0, 1 after an error, -9 if it was killed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    start_server()
    process = SERVER.Process(target=_called, args=(function, arguments, str(log.resolve()), environment))
    process.start()
    return process


def start_server() -> None:
    """If it does not run already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONWARNINGS", "ignore")
        forkserver.ensure_running()


def fork_server() -> None:
    """Begin the server as a fork of this process: what is not ours is imported once for both, which takes seconds.

    Only where this process has nothing of ours yet, and computes in one thread: as much as the server may have.
    """
    ours = any(name.partition(".")[0] in ("pipeline", "stages") for name in sys.modules)
    if ours or os.environ.get("OMP_NUM_THREADS") != "1" or sys.platform != "linux":
        return
    for name in IMPORTED:
        with suppress(ImportError):
            importlib.import_module(name)
    resource_tracker.ensure_running()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pytest's process has a thread, which the fork does not need
        patch.setattr("multiprocessing.util.spawnv_passfds", _forked)
        forkserver.ensure_running()


def _forked(_: str, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """In place of `spawnv_passfds`: a process that runs the program of `python -c`, without a new interpreter."""
    number = os.fork()
    if number == 0:
        _serve(arguments[-1], descriptors)
    return number


def _serve(program: str, descriptors: Sequence[int]) -> NoReturn:
    """Leave all that is pytest's alone, and be a server."""
    try:
        gc.freeze()
        faulthandler.disable()
        for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - names alone
            if number > 2 and number not in descriptors:
                with suppress(OSError):  # that of the list itself
                    os.close(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.meta_path[:] = [each for each in sys.meta_path if not type(each).__module__.startswith("_pytest")]
        sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115 - a number
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
        os.environ["PYTHONWARNINGS"] = "ignore"
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
        exec(program, {"__name__": "__main__"})
    except SystemExit:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def fork_workers(patch: pytest.MonkeyPatch) -> None:
    """Dask's nannies begin their workers so, too, instead of by spawn.

    The server runs when this returns: whoever counts processes then does not take it for a worker.
    """
    start_server()
    for module in ("nanny", "process"):
        patch.setattr(f"distributed.{module}.get_mp_context", lambda: SERVER)


def finished(process: ForkServerProcess) -> int:
    """The exit code of a process, waited for."""
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def output_of(function: Callable[..., object], *arguments: Any, log: Path) -> str:
    """What a function prints in a process of its own, which must succeed."""
    code = finished(begin_process(function, *arguments, log=log))
    assert code == 0, log.read_text()
    return log.read_text()


def _called(function: Callable[..., object], arguments: tuple[Any, ...], log: str, environment: dict[str, str]) -> None:
    gc.freeze()  # what the server imported stays, and its memory is shared as long as nobody counts it
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    import torch

    torch.set_num_threads(1)
    # Of a stream that is not the process's own no silence is broken: how busy the machine is, is not to be compared.
    sys.stderr = io.TextIOWrapper(sys.stderr.buffer, line_buffering=True)
    try:
        function(*arguments)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
