"""Fixtures for every test."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# `from shared import shared_file` works from every folder of tests.
sys.path.insert(0, str(Path(__file__).parent))

from experiment import among, here, road, several, there, travelled
from faults import faults
from object_server import bucket, object_server

__all__ = ["among", "bucket", "faults", "here", "object_server", "road", "several", "there", "travelled"]

# Machines are busy at times: no example is too slow.
settings.register_profile("anywhere", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("anywhere")
