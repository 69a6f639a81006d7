"""Fixtures for every test."""

from __future__ import annotations

import sys
from pathlib import Path

# `from shared import shared_file` works from every folder of tests.
sys.path.insert(0, str(Path(__file__).parent))

from experiment import here, road, there, travelled

__all__ = ["here", "road", "there", "travelled"]
