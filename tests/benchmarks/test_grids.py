"""The comparison of grids: one cache stands for four."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.source import ConfigFile
from pipeline.signals.lowpass import lowpass

grids = pytest.importorskip("grids")


def test_each_set_ends_at_its_grid_and_differs_in_nothing_else() -> None:
    config = ConfigFile(grids.CONFIG, grids.FIXED).read(ExperimentConfig)
    common = [entry.model_dump() for entry in config.objectives["kd"].objectives]
    found = []
    for grid in grids.GRIDS:
        *others, last = (entry.model_dump() for entry in config.objectives[f"lfcc-{grid}"].objectives)
        assert others == common
        assert last.pop("scales")[-1] == grid
        found.append(last)
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("grid", grids.GRIDS)
def test_the_finest_grid_has_all_coarser_ones(grid: int) -> None:
    whole = torch.randn(3, 5, 16, 16, dtype=torch.float64)
    assert torch.allclose(lowpass(lowpass(whole, max(grids.GRIDS)), grid), lowpass(whole, grid), rtol=1e-12, atol=1e-12)


def test_bytes_are_those_of_the_grid(road: Path) -> None:
    """Blocks of 32 and 64 channels, in float32 there."""
    assert grids.bytes_of_maps(road / "artifacts/caches/tiny.zarr") == {g: 4 * (32 + 64) * g**2 for g in grids.GRIDS}
