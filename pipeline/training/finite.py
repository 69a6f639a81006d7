"""Refuses losses that are not finite, at once or without waiting for a GPU, and weights that are not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.errors import TrainingError
from pipeline.objectives import Terms
from pipeline.training.batches import Steps
from pipeline.training.optimisation import is_fused

BATCHES_UNREAD = 1000
"""Batches after which a GPU is asked at the latest, where epochs are longer."""

FINITE_HINT = "lower train.learning_rate, set train.clip_gradient, or use train.precision: float32"


def require_finite_weights(modules: Sequence[nn.Module], epoch: int) -> None:
    """Raise TrainingError if a weight is not finite. Waits for the device.

    A finite loss can have a gradient that is not, as a square root has at 0, and clipping makes NaN of all others then.
    Nothing may be saved before.

    Args:
        modules: whose parameters are looked at.
        epoch: that has ended, for the message.
    """
    named = [pair for module in modules for pair in module.named_parameters()]
    if not named:
        return
    finite = torch.stack([torch.isfinite(weight).all() for _, weight in named])
    if not finite.all():
        wrong = [name for (name, _), fine in zip(named, finite.tolist(), strict=True) if not fine]
        raise TrainingError(
            f"weights are not finite after epoch {epoch}, since a gradient was not, though every loss was; those of "
            "before are in the last checkpoint",
            where=f"{', '.join(wrong[:4])}{f' and {len(wrong) - 4} more' if len(wrong) > 4 else ''}",
            fix=FINITE_HINT,
        )


class FiniteLoss:
    """Stops a run at the first loss that is not finite, with the weights of before it.

    A CPU is asked at every batch. A GPU is not: the first such loss sets a mark there, and a fused optimiser that finds
    the mark updates nothing, then and ever after. The mark is read once in an epoch. Optimisers that are not fused do
    not know the mark, so with them a GPU is asked at every batch too.

    Args:
        steps: of the run.
        device: of the training.
        optimizer: takes the mark.
        deferred: whether to read it later; None as said above.
    """

    def __init__(self, steps: Steps, device: torch.device, optimizer: Optimizer, deferred: bool | None = None) -> None:
        self.steps = steps
        self.deferred = (device.type == "cuda" and is_fused(optimizer)) if deferred is None else deferred
        self.mark = torch.zeros((), device=device)
        self._seen = torch.zeros((), dtype=torch.int64, device=device)
        self._first = torch.zeros((), dtype=torch.int64, device=device)
        self._finite: dict[tuple[str, ...], Tensor] = {}
        self._unread: list[tuple[int, int]] = []
        # As with `torch.amp`, whose scaler sets it for the same end.
        optimizer.found_inf = self.mark if self.deferred else None  # type: ignore[attr-defined]

    def see(self, value: Terms, step: int, part: int) -> None:
        """Take the loss of a batch, before its gradient. Raises TrainingError if it is read now, and is not finite.

        Args:
            value: the loss.
            step: the number of the step.
            part: the number of the batch in it.
        """
        if not self.deferred:
            if not torch.isfinite(value.total):
                raise self._error(step, part, [term for term, x in value.terms.items() if not torch.isfinite(x)])
            return
        self.look(value)
        self.note(step, part)

    def look(self, value: Terms) -> None:
        """Set the mark for a loss that is not finite, on the device alone: nothing but tensors is changed.

        Args:
            value: as of `see`. `note` is to follow.
        """
        bad = ~torch.isfinite(value.total.detach())
        first = bad & (self.mark == 0)
        self._first.copy_(torch.where(first, self._seen, self._first))
        self._seen += 1
        if names := tuple(value.terms):
            finite = torch.stack([torch.isfinite(x) for x in value.terms.values()]) | ~first
            if names not in self._finite:
                self._finite[names] = torch.ones_like(finite)
            self._finite[names] &= finite
        self.mark.masked_fill_(bad, 1.0)  # the tensor that the optimiser has

    def note(self, step: int, part: int) -> None:
        """Keep of which batch `look` was the last. Raises TrainingError as `see` does, if the mark is read now.

        Args:
            step, part: as of `see`.
        """
        self._unread.append((step, part))
        if len(self._unread) == BATCHES_UNREAD:
            self.require()

    def require(self) -> None:
        """Raise TrainingError if a loss since the last reading was not finite. Waits for the device if there were any.

        Nothing may be saved before.
        """
        if self._unread and self.mark:
            step, part = self._unread[int(self._first)]
            each = (zip(names, finite.tolist(), strict=True) for names, finite in self._finite.items())
            raise self._error(step, part, [name for pairs in each for name, fine in pairs if not fine])
        self._unread.clear()
        self._seen.zero_()
        for finite in self._finite.values():
            finite.fill_(True)

    def _error(self, step: int, part: int, wrong: Sequence[str]) -> TrainingError:
        _, rows = self.steps.read_by(step)
        rows = np.array_split(rows, min(self.steps.config.accumulate, len(rows)))[part]
        ids = list(dict.fromkeys(self.steps.samples.ids(rows)))
        return TrainingError(
            f"the loss is not finite at step {step}; the weights before it are in the last checkpoint",
            where=f"term {', '.join(wrong or ['the weighted sum'])}",
            got=f"samples {', '.join(ids[:8])}{', ...' if len(ids) > 8 else ''}",
            fix=FINITE_HINT,
        )
