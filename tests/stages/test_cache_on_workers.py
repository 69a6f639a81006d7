"""The command with `--workers`: the same store, the same end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from distributed import LocalCluster
from experiment import content

from pipeline.cli import main
from pipeline.store.reader import TeacherCache

ROOT = Path(__file__).resolve().parents[2]
CACHES = ("tiny.zarr", "tiny.holdout.zarr", "tiny.evaluation.zarr")
MANY = ("--set", "views.count=40")


def start(*arguments: str) -> subprocess.Popen[str]:
    """The command, in a session of its own, as if from a terminal."""
    return subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error::UserWarning",
            "-m",
            "pipeline.cli",
            "cache-teacher",
            "-c",
            "tiny.yaml",
            *arguments,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def stores(folder: Path) -> dict[str, dict[str, bytes]]:
    """The files of all caches that are a function of their identity: all but the roots' provenance."""
    return {name: content(folder / name) | {"zarr.json": b""} for name in CACHES}


def when_begun(process: subprocess.Popen[str], action: Callable[[], None]) -> str:
    """The output of a command to which something happens after some units."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        ledgers = list(Path("on-workers").glob(".tiny.zarr.*.partial/ledger.jsonl"))
        if ledgers and ledgers[0].read_bytes().count(b"\n") > 5:
            break
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    action()
    return process.communicate(timeout=240)[0]


def alive(session: int) -> list[str]:
    """The commands of processes of a session; those that are about to end are waited for."""
    deadline = time.monotonic() + 120
    while True:
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


@pytest.mark.long
def test_workers_write_what_one_process_writes(here: Path) -> None:
    process = start("--workers", "2", "--set", "store.path=on-workers/tiny.zarr")
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    assert "cache teacher: 100% 96/96 views" in output
    assert "Error" not in output
    assert "Warning" not in output
    assert stores(here / "on-workers") == stores(here / "artifacts/caches")
    assert sorted(path.name for path in (here / "on-workers").iterdir()) == sorted(CACHES)
    assert not alive(process.pid)


@pytest.mark.long
def test_ctrl_c_and_a_kill_leave_nothing_behind_and_lose_nothing(here: Path) -> None:
    options = ("--workers", "2", *MANY, "--set", "store.path=on-workers/tiny.zarr")
    process = start(*options)
    output = when_begun(process, lambda: os.killpg(process.pid, signal.SIGINT))
    assert process.returncode == 130, output
    assert "interrupted: run the same command again; what was finished is kept" in output
    assert "Traceback" not in output
    assert not alive(process.pid)

    process = start(*options)
    when_begun(process, process.kill)
    assert not alive(process.pid)

    output = start(*MANY, "--set", "store.path=on-workers/tiny.zarr").communicate(timeout=240)[0]
    assert "going on from" in output
    start(*MANY, "--set", "store.path=alone/tiny.zarr").communicate(timeout=240)
    assert stores(here / "on-workers") == stores(here / "alone")


def test_a_cluster_and_workers_here_exclude_each_other() -> None:
    result = CliRunner().invoke(main, ["cache-teacher", "--workers", "2", "--scheduler", "tcp://10.0.0.1:8786"])
    assert result.exit_code == 2
    assert "exclude each other" in result.output


def test_workers_of_a_cluster_write_what_one_process_writes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"memory_limit": 0, "dashboard_address": "127.0.0.1:0", "silence_logs": 60}
    with LocalCluster(n_workers=2, threads_per_worker=2, processes=False, **options) as cluster:
        arguments = ("--scheduler", cluster.scheduler_address, "--set", "store.path=on-workers/tiny.zarr")
        main(["cache-teacher", "-c", "tiny.yaml", *arguments], standalone_mode=False)
    output = capsys.readouterr().err
    assert "cache teacher: 100% 96/96 views" in output
    assert stores(here / "on-workers") == stores(here / "artifacts/caches")
    (run,) = TeacherCache.open(Path("on-workers/tiny.zarr")).manifest.provenance["runs"]
    assert [kind["units"] for kind in run["workers"]] == [6]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere"])
def test_without_a_scheduler_it_ends_and_says_so(here: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.cluster.clusters.CONNECT_SECONDS", 0.5)
    arguments = ("--scheduler", address, "--set", "store.path=on-workers/tiny.zarr")
    result = CliRunner().invoke(main, ["cache-teacher", "-c", "tiny.yaml", *arguments])
    assert result.exit_code == 1, result.output
    assert "error: cannot reach the Dask scheduler" in result.output
    assert address in result.output
    assert not (here / "on-workers").exists()
