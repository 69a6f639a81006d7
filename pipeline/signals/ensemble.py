"""Computes the logits of an ensemble from those of its members."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Mean = Literal["mean-logits", "mean-probabilities"]
"""How members are combined, named as in `caches.*.role`."""


def combine(logits: Sequence[Tensor], mean: Mean) -> Tensor:
    """Compute the logits [..., K] of an ensemble of M networks, from the members' logits z_m, [..., K] each.

        mean-logits           (1/M) Σ_m z_m
        mean-probabilities    log( (1/M) Σ_m softmax(z_m) )

    The first is the geometric mean of the members' probabilities, at every temperature. Of the second, the
    softmax is their arithmetic mean, at temperature one; a temperature T softens that mean, p^(1/T), and is not
    the mean of softened probabilities. Computed in log space in at least float32.
    """
    members = torch.stack(list(logits))
    members = members.to(torch.promote_types(members.dtype, torch.float32))
    if mean == "mean-logits":
        return members.mean(0)
    return members.log_softmax(-1).logsumexp(0) - math.log(len(members))
