"""The target class apart from all others: what DKD and NKD are made of."""

from __future__ import annotations

import torch
from torch import Tensor


def others_of(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits of all classes but the target: [..., K] and labels [...] to [..., K - 1], in the classes' order.

    Taken out rather than masked by a very small number, so that no logit is too large for it.
    """
    index = torch.arange(logits.shape[-1] - 1, device=logits.device).expand(*logits.shape[:-1], -1)
    return logits.gather(-1, index + (index >= labels[..., None]))


def target_or_not(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits of the question whether it is the target: [..., K] to [..., 2], whose softmax is (p_y, 1 - p_y)."""
    target = logits.gather(-1, labels[..., None])
    return torch.cat((target, others_of(logits, labels).logsumexp(-1, keepdim=True)), dim=-1)
