"""Separates the target class from all others, for DKD and NKD."""

from __future__ import annotations

import torch
from torch import Tensor


def others_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logits of all classes but the target, in their order: [..., K] and labels [...] to [..., K - 1].

    Taken out rather than masked by a very small number, so that no logit is too large for it.
    """
    index = torch.arange(logits.shape[-1] - 1, device=logits.device).expand(*logits.shape[:-1], -1)
    return logits.gather(-1, index + (index >= labels[..., None]))


def target_or_not(logits: Tensor, labels: Tensor) -> Tensor:
    """Return logits for target or not: [..., K] and labels [...] to [..., 2], whose softmax is (p_y, 1 - p_y)."""
    target = logits.gather(-1, labels[..., None])
    return torch.cat((target, others_of(logits, labels).logsumexp(-1, keepdim=True)), dim=-1)
