"""Every method is one graph to `torch.compile`: after `prepare` no step asks for a value, nor runs what has no trace.

Nothing in Decant compiles a step yet. What breaks a graph also waits for a device, or forbids that a step is captured.
All methods take some minutes, so all but one are of the long tests.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contracts.objective_cases import VARIANTS, as_leaves, batch, build, signals, total

REFUSED: dict[str, str] = {}
"""Methods that are no full graph, with the reason."""

QUICK = ("kd",)
"""Traced in the default suite."""


def cases() -> list[Any]:
    return [
        pytest.param(
            name, options, id="-".join([name, *options.values()]), marks=[] if name in QUICK else [pytest.mark.long]
        )
        for name, options in VARIANTS
        if name not in REFUSED
    ]


@pytest.mark.parametrize(("name", "options"), cases())
def test_a_step_is_one_graph(name: str, options: dict[str, Any]) -> None:
    backend = "eager" if name in QUICK else "aot_eager"
    for progress in (0.0,) if name in QUICK else (0.0, 0.5):
        torch._dynamo.reset()  # type: ignore[no-untyped-call]
        objective, eager = build(name, options), build(name, options)
        given = signals("teacher", 6, 2).detached(), batch(6, objective.needs.views), progress

        def step(*inputs: Any, objective: Any = objective) -> Any:
            return objective.forward(*inputs)

        compiled = torch.compile(step, fullgraph=True, backend=backend)
        for _ in range(2):  # the second step is that of all others: what is fixed by the first one is fixed
            (student, leaves), (other, expected) = (as_leaves(signals("student", 6, 1)) for _ in range(2))
            objective.prepare(given[1], progress)
            value, wanted = total(compiled(student, *given)), total(eager(other, *given))
            torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)
            torch.autograd.backward([value, wanted])
            for leaf, same in zip(leaves.values(), expected.values(), strict=True):
                torch.testing.assert_close(leaf.grad, same.grad, rtol=1e-4, atol=1e-6)
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
