"""Fits a linear probe: a new classifier for a network whose other weights stay as they are.

The network computes the embeddings of a few views of each image, once. Then the classifier alone is fitted to them,

    L(W, b) = (1/M) Σ_m l(W x_m + b, y_m) + (λ/2) |W|²,

by LBFGS over all embeddings x at once, which are standardised first so that the problem is well-conditioned. l is the
objective of the whole network. λ is the best of `DECAYS` on the holdout; without one, on every fifth image,
before all of them are fitted. Nothing is random but the views.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.errors import DataError
from pipeline.files import write_atomic
from pipeline.measuring.score import TOP1
from pipeline.models import Network
from pipeline.models.device import choose_device, choose_precision
from pipeline.objectives import Batch, ObjectiveSet
from pipeline.progress import Progress, Silent
from pipeline.signals import Signals
from pipeline.training.config import TrainConfig
from pipeline.training.embeddings import ProbeViews, embed, refuse_to_embed
from pipeline.training.history import History
from pipeline.training.loop import TrainingResult
from pipeline.training.order import balanced

DECAYS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Values of λ that are tried, the strongest first: each fit begins where the one before ended."""

ITERATIONS = 60
"""Iterations of LBFGS for each λ, at most."""

EVERY = 5
ASIDE = 0x6173696465  # "aside": keeps these random words apart from others
"""Without a holdout, one in so many images is set aside while λ is chosen."""

PROBE_FILE = "probe.pt"


@dataclass(frozen=True)
class ProbeResult:
    """Describes a fitted probe.

    loss: in nats, without the penalty. holdout: accuracy there, in [0, 1]; None without a holdout. decay: the λ that
    was chosen. views: views of each image. seconds: of embedding and fitting. images_per_second: rate of embedding, in
    views.
    """

    loss: float
    holdout: float | None
    decay: float
    views: int
    seconds: float
    images_per_second: float

    def run(self, network: Network, config: TrainConfig) -> TrainingResult:
        """Return the result of a training that consists of this probe alone.

        network: with the fitted classifier. config: of the training.
        """
        device = choose_device(config.device)
        row = {"epoch": 0, "loss": self.loss, "images_per_second": self.images_per_second, "seconds": self.seconds}
        row |= {} if self.holdout is None else {TOP1.column: self.holdout}
        precision = choose_precision(config.precision, device)
        return TrainingResult(network, History([row]), self.seconds, self.images_per_second, device.type, precision)


def probe(
    network: Network,
    objectives: ObjectiveSet,
    training: ProbeViews,
    holdout: ProbeViews | None,
    config: TrainConfig,
    *,
    seed: int,
    folder: Path | None,
    progress: Progress,
    key: str = "train",
) -> ProbeResult:
    """Fit the network's classifier to the labels of samples. Its other weights stay as they are.

    network: its classifier is set. objectives: what is minimised; they read logits alone. training: the samples to
    learn from. holdout: the samples that λ is chosen on; None if they have no labels. config: device, precision,
    sampling, workers. seed: of balanced sampling. folder: where the fitted probe is kept, so that a resumed run has
    it; None keeps none. progress: counts images, then fits. key: the section that an error names.

    Raises as `refuse_to_embed` does, and DataError without labels to learn from.
    """
    if folder is not None and (found := _kept(network, folder)):
        return found
    views = len(training.views)
    refuse_to_embed(network, views * training.samples.count, config, key, holdout=holdout is not None)
    start = time.perf_counter()
    device = choose_device(config.device)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    progress.begin("probe: embeddings", sum(data.samples.count for data in (training, holdout) if data), "images")
    vectors = embed(network, training, config, progress)
    rate = vectors.shape[:2].numel() / (time.perf_counter() - start)
    rows = _rows(vectors, _labels(training), config, seed)
    del vectors  # where they are drawn, rows are others: one of both is enough
    scored = _rows(embed(network, holdout, config, progress), _labels(holdout), TrainConfig(), 0) if holdout else None
    progress.end()
    classifier = network.classifier
    assert isinstance(classifier, nn.Linear)  # `refuse_to_embed` has seen to it
    fit = _Fit(rows.vectors, classifier, _values_of(objectives.to(device)), device)
    decay, top1 = fit.best(rows, scored, progress)
    fit.set(classifier)
    seconds = time.perf_counter() - start
    probed = ProbeResult(fit.loss, top1 if scored else None, decay, views, seconds, rate)
    if folder is not None:
        buffer = io.BytesIO()
        torch.save({"classifier": classifier.state_dict(), **asdict(probed)}, buffer)
        write_atomic(folder / PROBE_FILE, buffer.getvalue())
    return probed


def probed_classes(bank: Tensor, labels: Tensor, embeddings: Tensor, device: torch.device) -> Tensor:
    """Return the class of each embedding [N, D] by a linear probe that is fitted to a labeled bank: int64 [N].

    bank: embeddings [M, D]. labels: theirs, int64 [M], -1 for those without, which are left out. device: of the fit.
    λ is chosen on every fifth image of the bank. Raises DataError for a bank without labels.
    """
    known = labels >= 0
    rows = _Rows(bank[known].clone(), labels[known], torch.arange(int(known.sum())))
    if not len(rows.labels):
        raise DataError("a probe learns nothing without labels", fix="name a split that has some")
    classifier = nn.Linear(bank.shape[1], int(rows.labels.max()) + 1)
    fit = _Fit(rows.vectors, classifier, lambda logits, chosen: cross_entropy(logits, chosen.labels), device)
    fit.best(rows, None, Silent())
    fit.set(classifier)
    with torch.no_grad():
        found: Tensor = classifier(embeddings).argmax(1)
    return found


def forget(folder: Path) -> None:
    """Delete the probe in the folder of a finished run."""
    (folder / PROBE_FILE).unlink(missing_ok=True)


def _kept(network: Network, folder: Path) -> ProbeResult | None:
    """Set the classifier that the folder keeps; None if none can be read: then it is fitted again."""
    try:
        found: dict[str, Any] = torch.load(folder / PROBE_FILE, map_location="cpu", weights_only=True)
        classifier = network.classifier
        assert classifier is not None
        classifier.load_state_dict(found.pop("classifier"))
        return ProbeResult(**found)
    except Exception:  # no file, an incomplete one, another's: the probe is fitted again
        return None


@dataclass(frozen=True)
class _Rows:
    """Holds embeddings [M, D], with their labels and the numbers of their samples, int64 [M]."""

    vectors: Tensor
    labels: Tensor
    samples: Tensor

    def where(self, chosen: Tensor) -> _Rows:
        """Return the rows that a mask [M] chooses."""
        return _Rows(self.vectors[chosen], self.labels[chosen], self.samples[chosen])


def _labels(data: ProbeViews) -> Tensor:
    if data.samples.labels is None:
        raise DataError("a probe needs labels", where=f"split {data.samples.split.name!r}")
    return torch.from_numpy(data.samples.labels)


def _rows(vectors: Tensor, labels: Tensor, config: TrainConfig, seed: int) -> _Rows:
    """Return the rows to learn from, of embeddings [V, N, D]: all, without a copy.

    With `sampling: balanced` they are drawn, anew for each view, and copied.
    """
    count, views = len(labels), len(vectors)
    every, flat = np.arange(count, dtype=np.int64), vectors.flatten(0, 1)
    if config.sampling == "shuffled":
        samples = torch.from_numpy(every).repeat(views)
        return _Rows(flat, labels[samples], samples)
    drawn = [balanced([every], labels.numpy(), seed, view)[0] for view in range(views)]
    samples = torch.from_numpy(np.concatenate(drawn))
    places = torch.from_numpy(np.concatenate([view * count + rows for view, rows in enumerate(drawn)]))
    return _Rows(flat[places], labels[samples], samples)


def _values_of(objectives: ObjectiveSet) -> Callable[[Tensor, _Rows], Tensor]:
    """Return a function that computes the value of objectives, which read logits alone."""

    def values(logits: Tensor, rows: _Rows) -> Tensor:
        batch = Batch(rows.labels, rows.samples, torch.zeros_like(rows.samples))
        total: Tensor = objectives(Signals(logits), Signals(logits.detach()), batch, 0.0).total
        return total

    return values


class _Fit:
    """Fits a linear classifier to standardised embeddings. loss: of the last fit, without the penalty.

    values: computes what is minimised, without the penalty, of logits [M, K] and their rows.
    """

    def __init__(
        self,
        vectors: Tensor,
        classifier: nn.Linear,
        values: Callable[[Tensor, _Rows], Tensor],
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

    def best(self, rows: _Rows, scored: _Rows | None, progress: Progress) -> tuple[float, float]:
        """Fit with the λ that is best on `scored`; return it with the accuracy there."""
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

    def _standardised(self, rows: _Rows) -> _Rows:
        """Return the rows standardised, on the device of the fit; in place if they lie there, to save memory."""
        vectors = rows.vectors.to(self.device).sub_(self.mean).div_(self.deviation)
        return _Rows(vectors, rows.labels.to(self.device), rows.samples.to(self.device))

    def _minimise(self, rows: _Rows, decay: float) -> None:
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

    def _value(self, rows: _Rows) -> Tensor:
        """Return what is minimised, without the penalty."""
        return self.values(rows.vectors @ self.weight.T + self.bias, rows)

    def _score(self, rows: _Rows) -> tuple[float, float]:
        """Return accuracy and minus the cross-entropy, which decides between equal accuracies."""
        known = rows.where(rows.labels >= 0)
        with torch.no_grad():
            logits = known.vectors @ self.weight.T + self.bias
            right = (logits.argmax(1) == known.labels).float().mean()
            return float(right), -float(nn.functional.cross_entropy(logits, known.labels))
