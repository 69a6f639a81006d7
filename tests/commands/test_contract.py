"""`pipeline contract`: what holds of a plug-in of one's own, and each check finds a plug-in that breaks it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.contracts.architectures import ArchitectureContract
from pipeline.contracts.checks import NotTried, checks_of, outcomes
from pipeline.contracts.objectives import ObjectiveContract
from pipeline.contracts.operations import OperationContract
from pipeline.contracts.sources import SourceContract

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


METHODS = """
import torch
from torch import nn
from pipeline.config import Section
from pipeline.objectives import Needs, Objective
from pipeline.objectives.sample_objective import SampleObjective


class Options(Section):
    power: int = 2


class Mse(Objective):
    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, options: Options, student, teacher, context, key) -> None:
        super().__init__()
        self.power = options.power

    def forward(self, student, teacher, batch, progress):
        return {"mse": (student.logits.float() - teacher.logits.float()).abs().pow(self.power).mean().clamp(max=1e30)}


class Lenient(Options):
    model_config = {"extra": "ignore"}


class Ignores(Mse):
    def __init__(self, options: Lenient, student, teacher, context, key) -> None:
        super().__init__(options, student, teacher, context, key)


class Logs(Mse):
    def forward(self, student, teacher, batch, progress):
        return {"log": student.embedding.float().norm().log()}


class Alone(Mse):
    def forward(self, student, teacher, batch, progress):
        return {"deviation": (student.logits - teacher.logits).float().std(0).mean()}


class First(Mse):
    def forward(self, student, teacher, batch, progress):
        return {"mse": (student.logits[0] - teacher.logits[0]).float().square().mean()}


class Idle(Mse):
    def __init__(self, options: Options, student, teacher, context, key) -> None:
        super().__init__(options, student, teacher, context, key)
        self.projection = nn.Linear(2, 2)


class Steep(Mse):
    def forward(self, student, teacher, batch, progress):
        return {"norm": (student.logits.float() / (student.logits.float().norm(dim=1, keepdim=True) + 1e-6)).sum()}


class Alike(Mse):
    needs = Needs(teacher=frozenset({"logits", "embedding"}))

    def forward(self, student, teacher, batch, progress):
        apart = (teacher.embedding - teacher.embedding.roll(2 * 5, 0)).norm(dim=1)
        return {"ratio": (student.logits.float().square().mean(1) / apart).mean()}


class Labelled(Mse):
    def forward(self, student, teacher, batch, progress):
        return {"hard": nn.functional.cross_entropy(student.logits.float(), batch.labels, ignore_index=-1)}


class Mixes(Mse):
    def forward(self, student, teacher, batch, progress):
        mse = super().forward(student, teacher, batch, progress)["mse"]
        return {"mse": mse if batch.mixed is None else mse / 0}


class Counts(Mse):
    def __init__(self, options: Options, student, teacher, context, key) -> None:
        super().__init__(options, student, teacher, context, key)
        self.calls = 0

    def forward(self, student, teacher, batch, progress):
        self.calls += 1
        return {"mse": self.calls * super().forward(student, teacher, batch, progress)["mse"]}


class Rises(Mse):
    def forward(self, student, teacher, batch, progress):
        return {"mse": 100 + super().forward(student, teacher, batch, progress)["mse"]}


class Silent(Mse):
    needs = Needs(teacher=frozenset())

    def __init__(self, options: Options, student, teacher, context, key) -> None:
        super().__init__(options, student, teacher, context, key)
        self.width = teacher.embedding + 1


class Whole(SampleObjective):
    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, options: Options, student, teacher, context, key) -> None:
        super().__init__()

    def of_samples(self, student, teacher, batch, progress):
        return {"mse": (student.logits - teacher.logits).float().square().mean()}


class Pairs(Mse):
    def forward(self, student, teacher, batch, progress):
        if len(batch.view.unique()) > 1:
            return {"mse": torch.tensor(float("nan"), requires_grad=True)}
        return super().forward(student, teacher, batch, progress)
"""
BROKEN_METHODS = {
    "unknown_options_are_refused": "Ignores",
    "values_and_gradients_are_finite": "Logs",
    "batches_of_any_size_are_learnt_from": "Alone",
    "several_views_of_a_sample_are_learnt_from": "Pairs",
    "the_order_of_the_batch_does_not_matter": "First",
    "values_of_samples_are_one_for_each": "Whole",
    "gradients_reach_the_student_and_every_parameter_and_no_teacher": "Idle",
    "a_student_whose_head_is_zero_has_usual_gradients": "Steep",
    "a_teacher_to_whom_samples_are_alike_is_learnt_from": "Alike",
    "what_needs_no_labels_does_without": "Labelled",
    "mixed_views_are_learnt_from_or_refused": "Mixes",
    "its_state_is_all_there_is": "Counts",
    "twenty_steps_lower_it": "Rises",
    "signals_that_it_needs_are_missed_before_it_is_used": "Silent",
}
"""The check that finds each objective."""

SOURCES = """
import itertools
import numpy as np
from pathlib import Path
from pipeline.data import Item, SourceOptions


class Options(SourceOptions):
    path: Path = Path("here/photos")


class Noise:
    class_names, splits, description = ("dark", "light"), ("train", "test"), "noise"

    def __init__(self, options: SourceOptions) -> None:
        self.options = options

    def count(self, split):
        return 4

    def items(self, split):
        for number in range(4):
            yield Item(np.full((4, 4, 1), number, np.uint8), number % 2, f"{split}/{number}")


class Forgets(SourceOptions):
    def identity(self):
        return {"name": "noise"}


class Renamed(Noise):
    def __init__(self, options: Forgets) -> None:
        pass


class Lenient(SourceOptions):
    model_config = {"extra": "ignore"}


class Ignores(Noise):
    def __init__(self, options: Lenient) -> None:
        pass


class Miscounts(Noise):
    def count(self, split):
        return 5


class Turns(Noise):
    turn = itertools.count()

    def items(self, split):
        yield from [*super().items(split)][:: (-1) ** next(self.turn)]


class Wordy(Noise):
    description = "noise\\nof two classes"


class Anywhere(Noise):
    def __init__(self, options: Options) -> None:
        pass
"""
BROKEN_SOURCES = {
    "options_are_read_back_as_they_were_written": "Renamed",
    "unknown_options_are_refused": "Ignores",
    "every_split_has_the_items_that_it_counts": "Miscounts",
    "items_come_in_the_same_order_again": "Turns",
    "it_says_in_one_line_what_it_is_without_a_path_of_this_machine": "Wordy",
    "what_is_not_there_is_refused": "Anywhere",
}
"""The check that finds each source."""

NETWORKS = """
import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, num_classes, width=4):
        super().__init__()
        self.features = nn.ModuleList([nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(width, width, 3, 2, 1)])
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        for block in self.features:
            x = block(x).relu()
        return self.fc(x.mean((2, 3)))


class Mixed(Plain):
    def forward(self, x):
        return super().forward(x - x.mean(0, keepdim=True))


class Idle(Plain):
    def __init__(self, num_classes, width=4):
        super().__init__(num_classes, width)
        self.unused = nn.Linear(2, 2)


class Fixed(Plain):
    def __init__(self, num_classes, width=4):
        super().__init__(num_classes, width)
        for weight in self.parameters():
            nn.init.ones_(weight)
"""
BROKEN_NETWORKS = {
    "images_do_not_depend_on_each_other": "Mixed",
    "every_weight_learns": "Idle",
    "the_seed_decides_its_weights": "Fixed",
}
"""The check that finds each network. What the others look for is refused where a module is made a network of."""


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


def written(folder: Path, code: str) -> None:
    (folder / "own_tried.py").write_text(code)


def found_by(result: Result, check: str) -> bool:
    assert result.exit_code == 1, result.output + result.stderr
    return check.replace("_", " ") in broken(result)


def test_every_check_of_objectives_and_sources_has_one_that_breaks_it() -> None:
    assert list(BROKEN_METHODS) == checks_of(ObjectiveContract)
    assert list(BROKEN_SOURCES) == checks_of(SourceContract)
    assert set(BROKEN_NETWORKS) <= set(checks_of(ArchitectureContract))


@pytest.mark.parametrize("check", BROKEN_METHODS)
def test_a_check_of_objectives_finds_what_it_looks_for(own: Path, check: str) -> None:
    written(own, METHODS)
    assert found_by(contract(f"own_tried:{BROKEN_METHODS[check]}"), check)


@pytest.mark.parametrize("check", BROKEN_SOURCES)
def test_a_check_of_sources_finds_what_it_looks_for(own: Path, check: str) -> None:
    written(own, SOURCES)
    assert found_by(contract(f"own_tried:{BROKEN_SOURCES[check]}"), check)


@pytest.mark.parametrize("check", BROKEN_NETWORKS)
def test_a_check_of_networks_finds_what_it_looks_for(own: Path, check: str) -> None:
    written(own, NETWORKS)
    assert found_by(contract(f"own_tried:{BROKEN_NETWORKS[check]}", "--set", "input_size=16"), check)


@pytest.mark.parametrize(
    ("code", "name", "title"),
    [
        (METHODS, "own_tried:Mse", "objective own_tried:Mse with power=2"),
        (SOURCES, "own_tried:Noise", "source own_tried:Noise"),
        (NETWORKS, "own_tried:Plain", "architecture own_tried:Plain with input_size=16, width=8"),
    ],
)
def test_each_kind_is_told_by_what_its_factory_takes(own: Path, code: str, name: str, title: str) -> None:
    written(own, code)
    given = [f"--set={each}" for each in title.partition(" with ")[2].split(", ") if each]
    result = contract(name, *given)
    assert result.output.startswith(f"{title}\n"), result.output + result.stderr
    assert result.exit_code == 0, result.output
    assert "BROKEN" not in result.output


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
