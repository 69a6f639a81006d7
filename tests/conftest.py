"""Fixtures for every test."""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# `from shared import shared_file` works from every folder of tests.
sys.path.insert(0, str(Path(__file__).parent))

from processes import fork_server

# Before torch is imported: its threads sleep while they wait. Tests that ask whether their number matters have more of
# them than there are cores. Results are the same (docs/training.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Before Dask is imported: Python may wait for ever, and run no test's timeout, where it is asked for the frames of all
# threads while it collects garbage (https://github.com/python/cpython/issues/106883).
os.environ["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "False"

FIXTURES = ("experiment", "faults", "object_server", "own")
"""Modules whose fixtures every test may use."""

pytest.register_assert_rewrite(*FIXTURES, "pipeline.contracts")

# Compiled modules are kept, whatever the environment says, until all tests are collected: each worker would rewrite
# thousands of assertions, and hundreds of processes compile all of Decant.
sys.dont_write_bytecode = False

# Machines are busy at times: no example is too slow.
settings.register_profile("anywhere", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("anywhere")

MEMORY = Path("/dev/shm")


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A folder for what asks about disks: `tmp_path` may be in memory."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def pytest_configure(config: pytest.Config) -> None:
    """Whoever runs tests imports the fixtures; who only hands them to workers does not wait for torch.

    Before that the server is begun, which forks processes that have nothing of ours.

    Their folders are in memory, where there is room: to delete thousands of small files a disk takes half a minute. The
    long tests may write gigabytes.

    Bytecode of ours is kept, even where the environment wants none: every process that tests start would compile all.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if config.option.markexpr == "not long" and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 << 30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    if config.getoption("dist", "no") == "no" or hasattr(config, "workerinput"):
        if hasattr(config, "workerinput"):  # a few tests alone may need none
            fork_server()
        for module in FIXTURES:
            config.pluginmanager.register(importlib.import_module(module))
        importlib.import_module("pipeline.models.pretrained").timm_library()  # in all tests timm knows our networks


def pytest_collection_finish() -> None:
    """What is imported and collected stays: no garbage collection of a test looks at it again, which takes a second."""
    gc.collect()
    gc.freeze()
