"""What every operation that mixes two images must keep, found by its file, alone and between other operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contracts.keeping import require_kept
from test_views import cases, options_of

from pipeline.contracts.mixing import TRIED_AMONG, MixingContract, mixed_images, mixed_views
from pipeline.contracts.operations import TRIED_SIZE
from pipeline.errors import ConfigError, DataError
from pipeline.views import ViewsConfig, build_views


@pytest.fixture(params=cases(mixing=True))
def operation(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def test_contract(operation: dict[str, Any]) -> None:
    """What `pipeline contract` tries."""
    require_kept(MixingContract(operation), ["a_gpu_makes_the_same_pixels"])


def test_names_of_the_operation_and_of_columns(operation: dict[str, Any]) -> None:
    assert options_of(operation["name"]).model_fields["name"].default == operation["name"]
    flip = {"name": "horizontal-flip"}
    names, (flipped,) = list(mixed_views(flip, operation).parameter_names), mixed_views(flip).parameter_names
    assert names[:2] == [flipped, f"{operation['name']}.partner"]
    assert names[-1] == f"partner.{flipped}"


def test_images_that_differ_in_size_are_refused_before_they_are_mixed(operation: dict[str, Any]) -> None:
    flips = [{"name": "horizontal-flip"}, operation, {"name": "resize", "size": [20, 20]}]
    with pytest.raises(ConfigError, match="mixes images of one size") as error:
        mixed_views(*flips, size=None)
    assert [problem.key for problem in error.value.problems] == ["views.operations.1"]
    assert mixed_views(*flips[2:], operation, size=None).output_size == (20, 20)


def test_one_mix_is_enough(operation: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="mixed with one other image") as error:
        mixed_views(operation, {"name": "horizontal-flip"}, {"name": "cutmix"})
    assert [problem.key for problem in error.value.problems] == ["views.operations.2"]


def test_views_that_know_no_samples_are_refused_when_they_are_drawn(operation: dict[str, Any]) -> None:
    config, views = ViewsConfig.model_validate({"operations": [operation]}), mixed_views(operation)
    with pytest.raises(DataError, match="built without any"):
        build_views(config, TRIED_SIZE).parameters(0, TRIED_AMONG)
    with pytest.raises(DataError, match="not one of those that are mixed"):
        views.parameters(0, np.array([1]))
    with pytest.raises(DataError, match="missing"):
        views.apply(mixed_images(), views.parameters(0, TRIED_AMONG))
