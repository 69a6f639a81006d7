"""Each check of encodings, filters, extra signals and operations that mix finds a plug-in that breaks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.contracts.checks import checks_of, outcomes
from pipeline.contracts.encodings import EncodingContract
from pipeline.contracts.extras import ExtraContract
from pipeline.contracts.filters import FilterContract
from pipeline.contracts.mixing import MixingContract

FILTERS = """
import torch
import torch.nn.functional as F
from torch import Tensor


def mean(x: Tensor, grid_h, grid_w):
    return F.adaptive_avg_pool2d(x.to(torch.promote_types(x.dtype, torch.float32)), (grid_h, grid_w))


def square(x: Tensor, grid_h, grid_w):
    return mean(x, max(grid_h, grid_w), max(grid_h, grid_w))


def brighter(x: Tensor, grid_h, grid_w):
    return mean(x, grid_h, grid_w) + 1


def blurs(x: Tensor, grid_h, grid_w):
    return mean(F.avg_pool2d(x.float(), 3, 1, 1, count_include_pad=False), grid_h, grid_w).to(mean(x[:1], 1, 1).dtype)


def first(x: Tensor, grid_h, grid_w):
    return mean(x, grid_h, grid_w) + 0 * x[:, :1].amax((2, 3), True) + x[:, :1, :1, :1] - x[:, :1, -1:, -1:]


def largest(x: Tensor, grid_h, grid_w):
    return F.adaptive_max_pool2d(x.to(torch.promote_types(x.dtype, torch.float32)), (grid_h, grid_w))


def half(x: Tensor, grid_h, grid_w):
    return F.adaptive_avg_pool2d(x, (grid_h, grid_w))


def detached(x: Tensor, grid_h, grid_w):
    return mean(x.detach(), grid_h, grid_w) + 0 * x.sum()


def rounded(x: Tensor, grid_h, grid_w):
    return mean(x, grid_h, grid_w) + Rough.apply(x).mean()


class Rough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.kept = x
        return torch.zeros_like(x, dtype=torch.float32)

    @staticmethod
    def backward(ctx, grad):
        return torch.full_like(ctx.kept, 0.01)


def batched(x: Tensor, grid_h, grid_w):
    result = mean(x, grid_h, grid_w)
    return result * (1 + (x.mean() - x[:1].mean()))
"""
BROKEN_FILTERS = {
    "the_grid_is_at_most_the_map": "square",
    "constants_stay": "brighter",
    "an_axis_no_longer_than_the_grid_stays": "blurs",
    "a_linear_map_of_channels_may_come_before_or_after": "first",
    "it_is_linear": "largest",
    "it_computes_in_at_least_float32": "half",
    "it_is_differentiable": "detached",
    "gradients_of_half_types_are_not_rounded_on_the_way": "rounded",
    "samples_and_memory_layout_make_no_difference": "batched",
}
"""The check that finds each filter. No filter is asked about a map that is no larger than the grid."""

EXTRAS = """
import torch
from torch import Tensor


def energy(maps: Tensor):
    return maps.square().mean((2, 3))


def centred(maps: Tensor):
    return energy(maps) - energy(maps).mean(0)


def half(maps: Tensor):
    return energy(maps.half())


def rooted(maps: Tensor):
    return energy(maps).sqrt()


def detached(maps: Tensor):
    return energy(maps.detach()) + 0 * maps.sum()


def laid(maps: Tensor):
    return energy(maps) + maps.is_contiguous()
"""
BROKEN_EXTRAS = {
    "every_sample_is_by_itself": "centred",
    "it_computes_in_at_least_float32": "half",
    "values_and_gradients_are_finite": "rooted",
    "it_is_differentiable": "detached",
    "memory_layout_makes_no_difference": "laid",
}
"""The check that finds each extra signal."""

ENCODINGS = """
import numpy as np
import torch
from pipeline.config import Section
from pipeline.store.encodings import EncodingOverflow
from pipeline.store.encodings._one_array import OneArray


class Options(Section):
    pass


class Hidden(Options):
    model_config = {"extra": "ignore"}


class Single(OneArray):
    dtype = "<f4"

    def __init__(self, shape, options: Options) -> None:
        super().__init__(shape)

    def write(self, values):
        return values.copy()

    def read(self, stored):
        return stored.clone()

    def error_bound(self, values):
        return np.zeros(values.shape)


class Ignores(Single):
    def __init__(self, shape, options: Hidden) -> None:
        super().__init__(shape, options)


class Forgets(Single):
    def __init__(self, shape, options: "Stateful") -> None:
        super().__init__(shape, options)


class Stateful(Options):
    seen: list = []

    def model_dump(self, **how):
        self.seen.append(1)
        return {"seen": list(self.seen)}


class Rounds(Single):
    def write(self, values):
        return values.round()


class Centred(Single):
    def write(self, values):
        return values - values.mean(0, dtype=np.float32) * np.float32(1e-3)

    def error_bound(self, values):
        return np.full(values.shape, np.inf)


class Longer(Single):
    def write(self, values):
        return values.astype(np.float64)


class Suspicious(Single):
    def impossible_rows(self, part, rows):
        return (~np.isfinite(rows) | (rows == 0)).reshape(len(rows), -1).any(1)


class Trusting(Single):
    def impossible_rows(self, part, rows):
        return np.zeros(len(rows), bool)


class NotEmpty(Single):
    def write(self, values):
        return values.copy() + 0 * values.max()


class InPlace(Single):
    def write(self, values):
        values += 1
        return values - 1

    def error_bound(self, values):
        return np.full(values.shape, np.inf)


class Half(Single):
    dtype = "<f2"

    def write(self, values):
        with np.errstate(over="ignore"):
            return values.astype(np.float16)

    def read(self, stored):
        return stored.float()

    def error_bound(self, values):
        return np.full(values.shape, np.inf)
"""
BROKEN_ENCODINGS = {
    "options_are_read_back_as_they_were_written": "Forgets",
    "unknown_options_are_refused": "Ignores",
    "what_comes_back_is_within_the_bound": "Rounds",
    "rows_are_encoded_one_by_one": "Centred",
    "parts_are_as_declared": "Longer",
    "what_is_written_is_never_said_to_be_damaged": "Suspicious",
    "rows_that_nobody_wrote_are_told": "Trusting",
    "a_batch_may_be_empty": "NotEmpty",
    "values_are_not_changed": "InPlace",
    "a_value_is_kept_or_refused_with_its_row": "Half",
}
"""The check that finds each encoding."""

MIXES = """
import numpy as np
import torch
from pydantic import Field
from pipeline.views import OperationOptions


class Options(OperationOptions):
    most: int = 256


class Blend:
    exact, parameter_names, words = True, ("share",), 1

    def __init__(self, options: Options) -> None:
        self.most = options.most

    def ranges(self, size):
        return ((0, self.most),)

    def draw(self, words, sizes):
        return (words % np.uint64(self.most + 1)).astype(np.int32)

    def mix(self, images, partners, parameters):
        share = parameters[:, 0, None, None, None].to(images.device)
        return ((images.int() * share + partners.int() * (256 - share)) // 256).to(torch.uint8)

    def shares(self, parameters, size):
        return parameters[:, 0] / 256


class Excluded(OperationOptions):
    seen: int = Field(0, exclude=True)


class Forgets(Blend):
    def __init__(self, options: Excluded) -> None:
        self.most = 256


class Lenient(Options):
    model_config = {"extra": "ignore"}


class Ignores(Blend):
    def __init__(self, options: Lenient) -> None:
        self.most = 256


class Beyond(Blend):
    def shares(self, parameters, size):
        return parameters[:, 0] / 128


class InPlace(Blend):
    def mix(self, images, partners, parameters):
        result = super().mix(images, partners, parameters)
        images.zero_()
        return result


class Batched(Blend):
    def mix(self, images, partners, parameters):
        return super().mix(images, images.flip(0), parameters)


class Counts(Blend):
    calls = 0

    def mix(self, images, partners, parameters):
        Counts.calls += 1
        return super().mix(images, partners, parameters) + Counts.calls


class Threaded(Blend):
    def mix(self, images, partners, parameters):
        return super().mix(images, partners, parameters) + torch.get_num_threads()


class Random(Blend):
    def mix(self, images, partners, parameters):
        torch.rand(1)
        return super().mix(images, partners, parameters)
"""
BROKEN_MIXES = {
    "identity_has_every_option_and_the_samples": "Forgets",
    "unknown_options_are_refused": "Ignores",
    "parameters_and_shares_are_within_their_ranges": "Beyond",
    "shape_and_dtype_are_as_declared": "InPlace",
    "a_view_does_not_depend_on_the_batch": "Batched",
    "both_images_are_views_of_this_number_before_they_are_mixed": "Counts",
    "threads_make_no_difference": "Threaded",
    "random_generators_are_left_alone": "Random",
}
"""The check that finds each operation."""

KINDS: dict[str, tuple[str, dict[str, str], type, set[str]]] = {
    "filters": (FILTERS, BROKEN_FILTERS, FilterContract, {"a_map_no_larger_than_the_grid_stays"}),
    "extra signals": (EXTRAS, BROKEN_EXTRAS, ExtraContract, set()),
    "encodings": (ENCODINGS, BROKEN_ENCODINGS, EncodingContract, {"a_gpu_reads_the_same_values"}),
    "mixes": (MIXES, BROKEN_MIXES, MixingContract, {"a_gpu_makes_the_same_pixels"}),
}
"""Code, broken plug-ins, contract, and the checks that no plug-in here breaks, of each kind."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_has_a_plugin_that_breaks_it(kind: str) -> None:
    _, broken, contract, without = KINDS[kind]
    assert sorted({*broken, *without}) == sorted(checks_of(contract))


@pytest.mark.parametrize(("kind", "check"), [(kind, check) for kind in KINDS for check in KINDS[kind][1]])
def test_a_check_finds_what_it_looks_for(own: Path, kind: str, check: str) -> None:
    code, broken, contract, _ = KINDS[kind]
    (own / "own_tried.py").write_text(code)
    name = f"own_tried:{broken[check]}"
    chosen: Any = name if kind in ("filters", "extra signals") else {"name": name}
    tried = type("Alone", (contract,), {check: getattr(contract, check)})  # checks are those of the class itself
    (found,) = outcomes(tried(chosen))
    assert found.held is False, found
    assert found.reason


@pytest.mark.parametrize(
    ("code", "name", "title"),
    [
        (FILTERS, "own_tried:mean", "filter own_tried:mean"),
        (EXTRAS, "own_tried:energy", "extra signal own_tried:energy"),
        (ENCODINGS, "own_tried:Single", "encoding own_tried:Single"),
        (MIXES, "own_tried:Blend", "operation own_tried:Blend with most=256"),
    ],
)
def test_each_kind_is_told_by_what_its_function_takes(own: Path, code: str, name: str, title: str) -> None:
    (own / "own_tried.py").write_text(code)
    given = [f"--set={each}" for each in title.partition(" with ")[2].split(", ") if each]
    result = CliRunner().invoke(main, ["contract", name, *given])
    assert result.output.startswith(f"{title}\n"), result.output + result.stderr
    # Adaptive pooling is no exact mean where sizes do not divide, and is linear all the same.
    assert result.exit_code == 0, result.output
