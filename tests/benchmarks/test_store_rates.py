"""The benchmark of store rates still runs: it makes stores by hand, which the readers must take for caches."""

from __future__ import annotations

import os
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

store_rates = pytest.importorskip("store_rates")


def test_what_is_mapped_stays_in_memory_and_is_not_called_cold(on_disk: Path):
    """Linux drops no page that a process has mapped: of this file 16 of 20."""
    path = on_disk / "file"
    with path.open("wb") as file:
        file.write(bytes(20 * 4096 - 1))
        file.flush()
        os.fsync(file.fileno())
    mapped = np.memmap(path, mode="r", shape=16 * 4096)
    assert not mapped.any()  # touches its pages
    with pytest.raises(click.ClickException, match="stay in memory"):
        store_rates.forget(on_disk)
    there, pages = store_rates.resident(path)
    assert (16 <= there <= 20, pages) == (True, 20)
    del mapped
    try:
        store_rates.forget(on_disk)
    except click.ClickException:
        pytest.skip("this folder is on a file system without a disk")
    assert store_rates.resident(path) == (0, 20)
    path.read_bytes()
    assert store_rates.resident(path) == (20, 20)


@pytest.mark.long
def test_it_measures_what_it_says(on_disk: Path):
    result = CliRunner().invoke(store_rates.main, ["--samples", "4096", "--rounds", "2", "--folder", str(on_disk)])
    assert result.exit_code == 0, result.output
    for what in (
        "TeacherCache, random batches",
        "TeacherCache, in order, cold",
        "read plainly, cold",
        "written plainly",
    ):
        assert what in result.output
