"""All methods of Decant, and what the contract of objectives is tried on."""

from __future__ import annotations

from typing import Any

import torch

from pipeline import plugins
from pipeline.contracts.objective_signals import TRIED_CLASSES as CLASSES
from pipeline.contracts.objective_signals import TRIED_CONTEXT as CONTEXT
from pipeline.contracts.objective_signals import as_leaves
from pipeline.contracts.objective_signals import maps_of as leaves
from pipeline.contracts.objective_signals import sum_of_terms as total
from pipeline.contracts.objective_signals import tried_batch as batch
from pipeline.contracts.objective_signals import tried_shapes as shapes
from pipeline.contracts.objective_signals import tried_signals as signals
from pipeline.objectives import Context, Objective, build_objective

__all__ = ["CLASSES", "CONTEXT", "NAMES", "OF_EXTRAS", "VARIANTS", "as_leaves", "batch", "build", "leaves"]
__all__ += ["shapes", "signals", "total"]

NAMES = plugins.names("pipeline.objectives.methods")
OF_EXTRAS = [
    name for name in NAMES if "signal" in plugins.load("pipeline.objectives.methods", name, "").Options.model_fields
]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    *((name, {"signal": "extra"}) for name in OF_EXTRAS),
    ("tas", {"form": "smoothed"}),
]
"""Every method with its defaults, those that can read an extra signal also with that, and forms that read others."""


def build(name: str, options: dict[str, Any] | None = None, context: Context = CONTEXT) -> Objective:
    """The objective with the weights of seed 0."""
    torch.default_generator.manual_seed(0)
    return build_objective(name, options or {}, shapes("student"), shapes("teacher"), context)
