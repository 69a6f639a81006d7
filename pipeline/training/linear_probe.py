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
from pipeline.models.device import choose_device, choose_precision, reproducible
from pipeline.objectives import Batch, ObjectiveSet
from pipeline.progress import Progress, Silent
from pipeline.signals import Signals
from pipeline.training.config import TrainConfig
from pipeline.training.embeddings import ProbeViews, embed, refuse_to_embed
from pipeline.training.history import History
from pipeline.training.order import balanced
from pipeline.training.probe_fit import ProbeFit, ProbeRows
from pipeline.training.result import TrainingResult

PROBE_FILE = "probe.pt"


@dataclass(frozen=True)
class ProbeResult:
    """Describes a fitted probe.

    Args:
        loss: in nats, without the penalty.
        holdout: accuracy there, in [0, 1]; None without a holdout.
        decay: the λ that was chosen.
        views: views of each image.
        seconds: of embedding and fitting.
        images_per_second: rate of embedding, in views.
    """

    loss: float
    holdout: float | None
    decay: float
    views: int
    seconds: float
    images_per_second: float

    def run(self, network: Network, config: TrainConfig) -> TrainingResult:
        """Return the result of a training that consists of this probe alone.

        Args:
            network: with the fitted classifier.
            config: of the training.
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

    Args:
        network: its classifier is set.
        objectives: what is minimised; they read logits alone.
        training: the samples to learn from.
        holdout: the samples that λ is chosen on; None if they have no labels.
        config: device, precision, sampling, workers.
        seed: of balanced sampling.
        folder: where the fitted probe is kept, so that a resumed run has it; None keeps none.
        progress: counts images, then fits.
        key: the section that an error names.

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
    fit = ProbeFit(rows.vectors, classifier, _values_of(objectives.to(device)), device)
    with reproducible(device):
        decay, accuracy = fit.best(rows, scored, progress)
    fit.set(classifier)
    seconds = time.perf_counter() - start
    probed = ProbeResult(fit.loss, accuracy if scored else None, decay, views, seconds, rate)
    if folder is not None:
        buffer = io.BytesIO()
        torch.save({"classifier": classifier.state_dict(), **asdict(probed)}, buffer)
        write_atomic(folder / PROBE_FILE, buffer.getvalue())
    return probed


def probed_classes(bank: Tensor, labels: Tensor, embeddings: Tensor, device: torch.device) -> Tensor:
    """Return the class of each embedding [N, D] by a linear probe that is fitted to a labeled bank: int64 [N].

    Args:
        bank: embeddings [M, D].
        labels: theirs, int64 [M], -1 for those without, which are left out.
        device: of the fit.

    λ is chosen on every fifth image of the bank. Raises DataError for a bank without labels.
    """
    known = labels >= 0
    rows = ProbeRows(bank[known].clone(), labels[known], torch.arange(int(known.sum())))
    if not len(rows.labels):
        raise DataError("a probe learns nothing without labels", fix="name a split that has some")
    classifier = nn.Linear(bank.shape[1], int(rows.labels.max()) + 1)
    fit = ProbeFit(rows.vectors, classifier, lambda logits, chosen: cross_entropy(logits, chosen.labels), device)
    with reproducible(device):
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


def _labels(data: ProbeViews) -> Tensor:
    if data.samples.labels is None:
        raise DataError("a probe needs labels", where=f"split {data.samples.split.name!r}")
    return torch.from_numpy(data.samples.labels)


def _rows(vectors: Tensor, labels: Tensor, config: TrainConfig, seed: int) -> ProbeRows:
    """Return the rows to learn from, of embeddings [V, N, D]: all, without a copy.

    With `sampling: balanced` they are drawn, anew for each view, and copied.
    """
    count, views = len(labels), len(vectors)
    every, flat = np.arange(count, dtype=np.int64), vectors.flatten(0, 1)
    if config.sampling == "shuffled":
        samples = torch.from_numpy(every).repeat(views)
        return ProbeRows(flat, labels[samples], samples)
    drawn = [balanced([every], labels.numpy(), seed, view)[0] for view in range(views)]
    samples = torch.from_numpy(np.concatenate(drawn))
    places = torch.from_numpy(np.concatenate([view * count + rows for view, rows in enumerate(drawn)]))
    return ProbeRows(flat[places], labels[samples], samples)


def _values_of(objectives: ObjectiveSet) -> Callable[[Tensor, ProbeRows], Tensor]:
    """Return a function that computes the value of objectives, which read logits alone."""

    def values(logits: Tensor, rows: ProbeRows) -> Tensor:
        batch = Batch(rows.labels, rows.samples, torch.zeros_like(rows.samples))
        total: Tensor = objectives(Signals(logits), Signals(logits.detach()), batch, 0.0).total
        return total

    return values
