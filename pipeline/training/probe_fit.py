"""Fits a linear classifier to embeddings by LBFGS, and chooses its penalty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.progress import Progress

DECAYS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Values of λ that are tried, the strongest first: each fit begins where the one before ended."""

ITERATIONS = 60
"""Iterations of LBFGS for each λ, at most."""

EVERY = 5
ASIDE = 0x6173696465  # "aside": keeps these random words apart from others
"""Without a holdout, one in so many images is set aside while λ is chosen."""


@dataclass(frozen=True)
class ProbeRows:
    """Holds embeddings [M, D], with their labels and the numbers of their samples, int64 [M]."""

    vectors: Tensor
    labels: Tensor
    samples: Tensor

    def where(self, chosen: Tensor) -> ProbeRows:
        """Return some of the rows.

        Args:
            chosen: a mask [M].
        """
        return ProbeRows(self.vectors[chosen], self.labels[chosen], self.samples[chosen])


class ProbeFit:
    """Fits a linear classifier to standardised embeddings.

    Args:
        vectors: embeddings [M, D], which decide the mean and deviation.
        classifier: a layer of the shape of the fit.
        values: computes what is minimised, without the penalty, of logits [M, K] and their rows.
        device: of the fit.

    Attributes:
        loss: of the last fit, without the penalty.
    """

    def __init__(
        self,
        vectors: Tensor,
        classifier: nn.Linear,
        values: Callable[[Tensor, ProbeRows], Tensor],
        device: torch.device,
    ) -> None:
        variance, mean = torch.var_mean(vectors, 0, correction=0)
        deviation = variance.sqrt()
        # A feature that does not vary has only rounding errors, which must not be scaled up.
        self.deviation = deviation.clamp(min=max(1e-6 * float(deviation.max()), 1e-12)).to(device)
        self.mean = mean.to(device) if classifier.bias is not None else torch.zeros_like(mean, device=device)
        self.weight = torch.zeros(classifier.weight.shape, device=device, requires_grad=True)
        self.bias = torch.zeros(len(self.weight), device=device, requires_grad=classifier.bias is not None)
        self.values, self.device, self.loss = values, device, float("nan")

    def best(self, rows: ProbeRows, scored: ProbeRows | None, progress: Progress) -> tuple[float, float]:
        """Fit with the λ that is best on `scored`; return it with the accuracy there.

        Args:
            rows: to learn from.
            scored: to judge by; None sets every fifth image of `rows` aside.
            progress: counts fits.
        """
        progress.begin("probe: classifier", len(DECAYS) + (scored is None), "fits")
        # Drawn, since samples may come class by class in turn: every fifth would then be of one class.
        words = np.random.Philox(key=np.array([EVERY, ASIDE], np.uint64)).random_raw(int(rows.samples.max()) + 1)
        aside = torch.from_numpy(words % EVERY == 0)[rows.samples].to(self.device)
        rows, scored = self._standardised(rows), self._standardised(scored) if scored else None
        fitted, judged = (rows, scored) if scored else (rows.where(~aside), rows.where(aside))
        found: list[tuple[tuple[float, float], float, float, Tensor, Tensor]] = []
        for decay in DECAYS:
            self._minimise(fitted, decay)
            score = self._score(judged)
            state = self.weight.detach().clone(), self.bias.detach().clone()
            found.append((score, decay, self.loss, *state))
            progress.advance(1, f"penalty {decay:g} loss {self.loss:.4f} holdout {score[0]:.2%}")
        score, decay, self.loss, weight, bias = max(found, key=lambda one: one[0])
        with torch.no_grad():
            self.weight.copy_(weight)
            self.bias.copy_(bias)
        if scored is None:
            self._minimise(rows, decay)
            progress.advance(1)
        progress.end()
        return decay, score[0]

    def set(self, classifier: nn.Linear) -> None:
        """Copy the fit into a network's classifier, which takes embeddings that are not standardised."""
        with torch.no_grad():
            weight = self.weight / self.deviation
            classifier.weight.copy_(weight)
            if classifier.bias is not None:
                classifier.bias.copy_(self.bias - weight @ self.mean)

    def _standardised(self, rows: ProbeRows) -> ProbeRows:
        """Return the rows standardised, on the device of the fit; in place if they lie there, to save memory."""
        vectors = rows.vectors.to(self.device).sub_(self.mean).div_(self.deviation)
        return ProbeRows(vectors, rows.labels.to(self.device), rows.samples.to(self.device))

    def _minimise(self, rows: ProbeRows, decay: float) -> None:
        parameters = [self.weight, *([self.bias] if self.bias.requires_grad else [])]
        optimizer = torch.optim.LBFGS(
            parameters, max_iter=ITERATIONS, tolerance_grad=1e-6, tolerance_change=1e-8, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            total = self._value(rows) + decay / 2 * self.weight.square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.loss = float(self._value(rows))

    def _value(self, rows: ProbeRows) -> Tensor:
        """Return what is minimised, without the penalty."""
        return self.values(rows.vectors @ self.weight.T + self.bias, rows)

    def _score(self, rows: ProbeRows) -> tuple[float, float]:
        """Return accuracy and minus the cross-entropy, which decides between equal accuracies."""
        known = rows.where(rows.labels >= 0)
        with torch.no_grad():
            logits = known.vectors @ self.weight.T + self.bias
            right = (logits.argmax(1) == known.labels).float().mean()
            return float(right), -float(nn.functional.cross_entropy(logits, known.labels))
