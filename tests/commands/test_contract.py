"""`pipeline contract`: what holds of a plug-in of one's own, and each check finds a plug-in that breaks it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.contracts.checks import NotTried, checks_of, outcomes
from pipeline.contracts.operations import OperationContract

SHIFT = """
import numpy as np
import torch
from pydantic import Field
from pipeline.views import OperationOptions


class Options(OperationOptions):
    most: int = Field(8, examples=[0])


class Shift:
    exact, parameter_names, words, needs_sizes, fixes_size = True, ("by",), 1, False, False

    def __init__(self, options: Options) -> None:
        self.most = options.most

    def output_size(self, size):
        return size

    def ranges(self, size):
        return ((0, self.most),)

    def draw(self, words, sizes):
        return (words % np.uint64(self.most + 1)).astype(np.int32)

    def apply(self, images, parameters):
        return (images.to(torch.int16) + parameters[:, 0, None, None, None]).to(torch.uint8)


class Stateful(OperationOptions):
    seen: int = Field(0, exclude=True)


class Forgets(Shift):
    def __init__(self, options: Stateful) -> None:
        self.most = 8


class Lenient(Options):
    model_config = {"extra": "ignore"}


class Ignores(Shift):
    def __init__(self, options: Lenient) -> None:
        super().__init__(options)


class Floats(Shift):
    def apply(self, images, parameters):
        return images.float()


class InPlace(Shift):
    def apply(self, images, parameters):
        images += 1
        return images


class Beyond(Shift):
    def ranges(self, size):
        return ((0, self.most // 2),)


class Batched(Shift):
    def apply(self, images, parameters):
        return (images.float() - images.float().mean() + 128).clamp(0, 255).to(torch.uint8)


class Threaded(Shift):
    def apply(self, images, parameters):
        return super().apply(images, parameters) + torch.get_num_threads()


class Laid(Shift):
    def apply(self, images, parameters):
        return images + (0 if images.is_contiguous() else 1)


class Random(Shift):
    def apply(self, images, parameters):
        torch.rand(1)
        return super().apply(images, parameters)


class Sized(Shift):
    def output_size(self, size):
        return size if size in ((32, 40), None) else (32, 40)


class Fixed(Shift):
    def draw(self, words, sizes):
        return np.arange(len(words), dtype=np.int32)[:, None] % (self.most + 1)


class Unpicklable(Shift):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.most_of = lambda: self.most
"""
BROKEN = {
    "identity_survives_json": "Forgets",
    "unknown_options_are_refused": "Ignores",
    "shape_and_dtype_are_as_declared": "Floats",
    "parameters_are_within_their_ranges": "Beyond",
    "a_view_does_not_depend_on_the_batch": "Batched",
    "threads_make_no_difference": "Threaded",
    "memory_layout_makes_no_difference": "Laid",
    "random_generators_are_left_alone": "Random",
    "images_of_differing_sizes_are_rendered_one_by_one": "Sized",
    "seed_and_number_of_the_view_decide_what_is_drawn": "Fixed",
    "it_survives_a_pickle": "Unpicklable",
}
"""The check that finds each operation."""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The command sets a handler for SIGTERM, which is not for pytest."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def shift(own: Path) -> Path:
    (own / "own_shift.py").write_text(SHIFT)
    return own


def contract(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["contract", *arguments])


def broken(result: Result) -> set[str]:
    """The checks that did not hold."""
    return set(re.findall(r"^  BROKEN +([^:\n]*)", result.output, re.MULTILINE))


def test_every_check_has_an_operation_that_breaks_it() -> None:
    assert [*BROKEN, "a_gpu_makes_the_same_pixels"] == checks_of(OperationContract)


@pytest.mark.parametrize("check", BROKEN)
def test_a_check_finds_what_it_looks_for(shift: Path, check: str) -> None:
    found = [each for each in outcomes(OperationContract({"name": f"own_shift:{BROKEN[check]}"})) if each.held is False]
    assert check.replace("_", " ") in [each.check for each in found]
    assert all(each.reason for each in found)


def test_what_holds_is_said_of_each_set_of_options(shift: Path) -> None:
    result = contract("own_shift:Shift")
    assert result.exit_code == 0, result.output
    assert "operation own_shift:Shift\n" in result.output
    assert "operation own_shift:Shift with most=0\n" in result.output
    assert result.output.count("\n  held ") >= 2 * len(BROKEN)
    assert result.output.endswith("all that was tried held\n")
    chosen = contract("own_shift:Shift", "--set", "most=3")
    assert re.findall(r"^operation .*", chosen.output, re.MULTILINE) == ["operation own_shift:Shift with most=3"]


def test_what_does_not_hold_is_counted_and_ends_with_one(shift: Path) -> None:
    result = contract("own_shift:InPlace", "--set", "most=2")
    assert result.exit_code == 1
    assert "shape and dtype are as declared: the images were changed in place" in result.output
    assert f"{len(broken(result))} did not hold" in result.output
    assert contract("own_shift:Random", "--set", "most=2").output.count("BROKEN") == 1


def test_a_short_name_will_do() -> None:
    result = contract("horizontal-flip", "--set", "probability=1.0")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("operation horizontal-flip with probability=1.0\n")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["own_shit:Shift"], ["there is no module 'own_shit'", "did you mean 'own_shift'?"]),
        (["own_shift:Shfit"], ["own_shift has no 'Shfit'", "did you mean 'Shift'?"]),
        (["own_shift:np"], ["is no function or class"]),
        (["horizontal-flop"], ["NAME: unknown name 'horizontal-flop'", "did you mean 'horizontal-flip'?"]),
        (["own_shift:Shift", "--set", "mots=3"], ["NAME.mots: unknown key", "did you mean 'most'?"]),
        (["mixup"], ["mixes two images", "tests/contracts/test_mixing.py"]),
    ],
)
def test_what_cannot_be_tried_is_refused(shift: Path, arguments: list[str], parts: list[str]) -> None:
    result = contract(*arguments)
    assert result.exit_code == 2
    assert not [part for part in parts if part not in result.stderr], result.stderr


def test_what_cannot_be_tried_here_is_no_failure() -> None:
    class Contract:
        def holds(self) -> None:
            pass

        def needs_more(self) -> None:
            raise NotTried("there is no GPU")

        def breaks(self) -> None:
            assert 1 + 1 == 3

    assert [(each.held, each.reason) for each in outcomes(Contract())][:2] == [(True, ""), (None, "there is no GPU")]
    assert "1 + 1" in [*outcomes(Contract())][2].reason
