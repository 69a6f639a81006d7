"""What a step may ask of a GPU, held without one. A new method, operation or encoding is found by its file.

The costs are in `step_costs.json`. What grows has to be written there on purpose; what falls may stay.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from contracts import step_costs
from contracts.claimed import moved, on_cuda
from contracts.objective_cases import CLASSES, CONTEXT, VARIANTS, batch, signals
from contracts.test_students import STUDENTS

from pipeline import plugins
from pipeline.contracts.operations import variants
from pipeline.experiment.networks import shapes_of
from pipeline.models import build_network
from pipeline.objectives import Needs, ObjectiveEntry, ObjectiveSet
from pipeline.objectives.standardised import StandardisedTeacher
from pipeline.signals import Signals
from pipeline.signals.moments import Moments
from pipeline.store.encodings import ENCODINGS
from pipeline.views.config import OPERATIONS as PACKAGE

OPERATIONS = [next(variants(name)) for name in plugins.names(PACKAGE)]
KNOWN = json.loads(step_costs.TABLE.read_text()) if step_costs.TABLE.exists() else {}
NEW = {"launches": 10**9}
"""What has no row may start as many kernels as it likes, copies nothing between devices, and asks for no value."""

UNFINISHED: set[str] = set()
"""Methods that still draw, read or ask within a step."""


def require_no_more(kind: str, row: str, costs: dict[str, int]) -> None:
    """The costs are those of the table, or less. Other versions of torch have operations of their own."""
    known = KNOWN[kind].get(row, NEW)
    same = torch.__version__.split(".")[:2] == KNOWN["torch"].split(".")[:2]
    more = {
        name: f"{cost} where there were {known.get(name, 0)}"
        for name, cost in costs.items()
        if cost > known.get(name, 0) * (1 if same or name != "launches" else 1.25)
    }
    assert not more, (
        f"{row} costs more: {more}.\nCan it do with less? `prepare` is for what the host does once a step, and `build` "
        f"for what is done once. If it is worth it, write the table anew, `{step_costs.AGAIN}`, and say so"
    )


@pytest.mark.parametrize(("name", "options"), [each for each in VARIANTS if each[0] not in UNFINISHED])
def test_an_objective(name: str, options: dict[str, Any]) -> None:
    require_no_more("objectives", step_costs.row_name(name, options), step_costs.of_objective(name, options))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: step_costs.row_name(each["name"], each))
def test_a_view_operation(operation: dict[str, Any]) -> None:
    row = step_costs.row_name(operation["name"], operation)
    require_no_more("operations", row, step_costs.of_operation(operation))


@pytest.mark.parametrize("name", plugins.names(ENCODINGS))
def test_an_encoding(name: str) -> None:
    require_no_more("encodings", name, step_costs.of_encoding(name))


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_a_training_steps_forward(kind: str) -> None:
    """From pixels to the loss of a set, in bfloat16: nothing is copied, and the loss is there."""
    model, size, options = STUDENTS[kind]
    network = build_network(model, CLASSES, input_size=size, options=options, seed=2).train()
    entries = [ObjectiveEntry.model_validate({"name": name}) for name in ("hard-label", "kd", "lfcc")]
    teacher = signals("teacher", 6, 2)
    shapes = shapes_of(network), teacher.shapes()
    network.keep_taps([*shapes[0].features])
    objectives, given = ObjectiveSet("set", entries, *shapes, CONTEXT), batch(6)
    with on_cuda() as devices:
        pixels = torch.zeros(6, 3, size, size, dtype=torch.uint8, device="cuda")
        for each in (network, objectives):
            moved(each)
        with torch.autocast("cuda", torch.bfloat16):
            value = objectives(network(pixels), *(moved(each) for each in (teacher, given)), 0.5)
    assert (value.total.device.type, value.total.dtype) == ("cuda", torch.float32)
    assert devices.copies == 0


@pytest.mark.parametrize("how", ["channels", "phi-s"])
def test_standardised_signals_are_copied_nowhere(how: Any) -> None:
    """Neither those of a batch, on the GPU, nor those of the bank, on the CPU: the GPU is not waited for."""
    rows = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    moments = Moments(40, rows.double().mean(0).numpy(), rows.double().T.cov(correction=0).numpy())
    bank = replace(CONTEXT, moments=lambda signal: moments, bank=lambda signal, samples, view: rows[samples])
    standard = StandardisedTeacher(how, replace(bank, class_means=lambda: rows[:3]))
    read, means = standard.context.bank, standard.context.class_means
    assert standard.bind(Needs(teacher=frozenset({"embedding"})), "objectives.tried.0") == []
    assert read is not None
    assert means is not None
    before = read("embedding", torch.arange(4), 0), means()
    with on_cuda() as devices:
        moved(standard)
        found = standard(Signals(logits=torch.empty(4, 2, device="cuda"), embedding=torch.empty(4, 5, device="cuda")))
        assert found.embedding is not None
        assert found.embedding.device.type == "cuda"
        after = read("embedding", torch.arange(4), 0), means()
    assert devices.copies == 0
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_what_costs_more_is_told_what_to_do() -> None:
    costs = {**KNOWN["objectives"]["kd"], "copies": 1}
    with pytest.raises(AssertionError, match=r"(?s)kd costs more: \{'copies': '1 where there were 0'\}.*step_costs.py"):
        require_no_more("objectives", "kd", costs)
    require_no_more("objectives", "a new one", {"launches": 1000, "copies": 0, "asked": 0})
    with pytest.raises(AssertionError, match="a new one costs more"):
        require_no_more("objectives", "a new one", {"launches": 1, "copies": 0, "asked": 1})


def test_what_waits_for_a_device_is_seen() -> None:
    x, seen = torch.arange(3.0), step_costs.Launches()
    with seen:
        _ = x[x > 1], bool(x.sum() > 0), x.long().unique(), x[:2].view(2, 1)
    assert seen.waits[:2] == ["index by a mask", "_local_scalar_dense"]
    assert "_unique2" in seen.waits


def test_what_draws_is_seen() -> None:
    seen = step_costs.Launches()
    with seen:
        _ = torch.randn(3), torch.zeros(2).uniform_(), torch.randperm(4), torch.rand_like(torch.zeros(2))
    assert seen.draws[0] == "randn"
    assert len(seen.draws) >= 4
    for name in ("default_rng", "rand", "permutation"):
        with step_costs.no_draws_of_numpy(), pytest.raises(AssertionError, match="draw them in `prepare`"):
            getattr(np.random, name)(3)


def test_tensors_of_two_devices_are_refused_and_copies_counted() -> None:
    with on_cuda() as devices:
        here, there = torch.zeros(3), torch.zeros(3, device="cuda")
        _ = here.cuda() + there, there.cpu(), there.half()
        assert devices.copies == 2
        with pytest.raises(AssertionError, match="index of tensors on cpu and cuda"):
            here[torch.zeros(1, dtype=torch.long, device="cuda")]


def test_asking_for_a_value_is_counted() -> None:
    x = torch.ones(1)
    with step_costs.Asked() as asked:
        _ = bool(x), int(x), x.item(), x.tolist(), x.numpy(), x.cpu(), x + 1
    assert asked.count >= 6
