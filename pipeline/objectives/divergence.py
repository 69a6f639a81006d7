"""Computes the Kullback-Leibler divergence of all methods, with its factor T^2."""

from __future__ import annotations

import torch
from torch import Tensor


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Compute T² · KL(softmax(teacher/T) ‖ softmax(student/T)) of every sample, in nats.

    Args:
        student_logits, teacher_logits: unnormalised.

    Both [..., K]; returns [...]. Computed from log-softmaxes in at least float32 (half types are promoted,
    float64 is kept), so that logits of ±1e4 stay finite. T² keeps the gradient's size independent of the
    temperature (Hinton, Vinyals and Dean, arXiv 1503.02531, section 2). A tensor for T is differentiated, too.
    """
    dtype = torch.promote_types(torch.promote_types(student_logits.dtype, teacher_logits.dtype), torch.float32)
    log_student = torch.log_softmax(student_logits.to(dtype) / temperature, dim=-1)
    log_teacher = torch.log_softmax(teacher_logits.to(dtype) / temperature, dim=-1)
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=-1) * temperature**2


def kl_divergence_among(student_logits: Tensor, teacher_logits: Tensor, among: Tensor, temperature: float) -> Tensor:
    """Compute `kl_divergence` of the distributions over some classes alone; 0 where there are none.

    Args:
        student_logits, teacher_logits: unnormalised, [..., K].
        among: bool [..., K], the classes that count.
        temperature: T.

    Returns [...]. The other classes get no gradient, however large their logits are.
    """
    dtype = torch.promote_types(torch.promote_types(student_logits.dtype, teacher_logits.dtype), torch.float32)
    # A row without classes keeps all of them: its softmax is defined, and nothing of it is added up.
    left_out = ~(among | ~among.any(-1, keepdim=True))
    log_student, log_teacher = (
        (logits.to(dtype) / temperature).masked_fill(left_out, -torch.inf).log_softmax(-1).masked_fill(~among, 0.0)
        for logits in (student_logits, teacher_logits)
    )
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=-1) * temperature**2
