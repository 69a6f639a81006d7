"""Benchmarks of loaders and of the whole road run, and compare what can be compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.training.encoded_outputs import tensors_of

loaders = pytest.importorskip("loaders")
road_cost = pytest.importorskip("road_cost")
larger = pytest.importorskip("larger_than_memory")


@pytest.mark.long
def test_a_gather_has_the_bytes_of_the_loader(tmp_path: Path) -> None:
    """Where views change nothing."""
    steps = loaders.cached_steps(tmp_path, 200, [])
    of_step = loaders.gathered(steps)
    for index in (0, 1):
        step = steps[index]
        assert step.teacher_outputs is not None
        expected = [step.images, step.labels, *tensors_of(step.teacher_outputs)]
        for array, tensor in zip(of_step(index), expected, strict=True):
            assert np.array_equal(array, tensor.numpy())


@pytest.mark.long
@pytest.mark.parametrize("case", list(road_cost.CASES))
def test_the_road_is_measured(case: str) -> None:
    result = CliRunner().invoke(road_cost.main, ["--case", case, "--smoke"])
    assert result.exit_code == 0, result.output
    assert "cache / memory: " in result.output
    assert "stage one / bare: " in result.output


@pytest.mark.long
def test_loaders_are_measured_beside_others() -> None:
    result = CliRunner().invoke(loaders.main, ["--smoke"])
    assert result.exit_code == 0, result.output
    assert "loader, views replayed over raw gather: " in result.output
    assert "Decant over torchvision, ImageFolder: " in result.output


@pytest.mark.long
def test_an_epoch_reads_every_byte_of_the_store_once(tmp_path: Path) -> None:
    """All but the checksums, the header of every file and what training does not read."""
    samples = 3 * larger.ROWS_PER_BLOCK
    larger._write(tmp_path, samples)
    assert larger.epoch(tmp_path) == samples * larger.BYTES_OF_SAMPLE
