"""Fixtures for every test."""

from __future__ import annotations

import gc
import importlib
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# `from shared import shared_file` works from every folder of tests.
sys.path.insert(0, str(Path(__file__).parent))

FIXTURES = ("experiment", "faults", "object_server")
"""Modules whose fixtures every test may use."""

pytest.register_assert_rewrite(*FIXTURES)

# Machines are busy at times: no example is too slow.
settings.register_profile("anywhere", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("anywhere")


def pytest_configure(config: pytest.Config) -> None:
    """Whoever runs tests imports the fixtures; who only hands them to workers does not wait for torch."""
    if config.getoption("dist", "no") == "no" or hasattr(config, "workerinput"):
        for module in FIXTURES:
            config.pluginmanager.register(importlib.import_module(module))


def pytest_collection_finish() -> None:
    """What is imported and collected stays: no garbage collection of a test looks at it again, which takes a second."""
    gc.collect()
    gc.freeze()
