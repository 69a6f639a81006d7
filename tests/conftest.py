"""Fixtures for every test."""

from __future__ import annotations

import sys
from pathlib import Path

# `from shared import shared_file` works from every folder of tests.
sys.path.insert(0, str(Path(__file__).parent))

from experiment import among, here, road, several, there, travelled
from faults import faults

__all__ = ["among", "faults", "here", "road", "several", "there", "travelled"]
