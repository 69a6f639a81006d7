"""Declares the section `train`: how a network is trained."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.training.tracking import TrackerChoice

NOT_IN_THE_WEIGHTS = frozenset(
    {"device", "workers", "checkpoint_epochs", "resident", "resident_gigabytes", "capture", "tracker"}
)
"""Keys that change how a run proceeds, but never the weights that it ends with."""


class TrainConfig(Section):
    """Configures how a network is trained.

    Args:
        batch_size: the largest batch, counted in views; the batches of an epoch differ by one sample at most.
        accumulate: batches whose gradients are added up before the optimiser makes one step, as of one batch that many
            times as large: for batches that the device has no memory for. Batch normalisation, objectives that compare
            samples with each other, and hard labels where some samples have none, still go by one batch at a time.
        views_per_step: m different views of a sample are in adjacent rows of a batch, and each epoch has m of each.
        sampling: `balanced` draws every class equally often, however many samples it has: those of small classes
            several times in an epoch, of large ones a part; an epoch is as long as with `shuffled`.
        optimizer, schedule: names of timm's factories (`sgd` is SGD with Nesterov momentum; `cosine`, `multistep`).
        learning_rate: the peak.
        weight_decay: of the network's weights, not of its biases and normalisation; and of all that objectives learn.
        momentum: of optimisers that have one.
        layer_decay: for weights that are good already: the rate of each layer, from the classifier to the first, is
            this times that of the layer after it; null is one rate for all.
        warmup_epochs: linear from a hundredth of it.
        milestones: the epochs after which `multistep` divides it by ten.
        clip_gradient: largest norm of the gradient.
        precision: `auto` is bfloat16 where the device computes it in hardware.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        ema: decay of an exponential moving average of the weights, which is then what is scored and saved.
        patience: stop after so many epochs in which the accuracy on the holdout was no better than before; the weights
            of the best epoch are kept, whether it stopped or not (null: those of the last epoch, after all of them).
        view_offset: epoch e uses view (e + view_offset) mod V, or, with m views per step, the m views from (m e +
            view_offset) mod V on.
        workers: processes that decode and render large data sets; 0 has this process do it, by as many threads as
            torch uses; null chooses.
        resident: whether images, and what is stored of the views of this epoch and the next, lie on the device, where
            batches are then made; `auto` does so on a GPU, and true on a CPU too. Where they do not fit, or cannot be
            read so, batches come as they do without it. The batches are the same.
        capture: record the kernels of a step on a GPU once, and launch them again as one: the same weights. Not for
            objectives that the host prepares (angular, crd, crcd, diffkd, ic-kd, mlld, nd, queue-kl, refilled,
            wkd-logits with class means), or that ask for the progress.
        compile: have `torch.compile` make kernels of the network on a GPU; the last bits are others.
        resident_gigabytes: data sets up to this size stay in memory.
        checkpoint_epochs: epochs between checkpoints; null chooses by time: a run that is killed loses at most 30
            seconds, or an epoch where that is longer.
        tracker: `tensorboard`, `mlflow`, `wandb`, `dvclive`, or its name and options; takes the values of every epoch.
    """

    later: ClassVar[frozenset[str]] = frozenset({"accumulate", "sampling", "layer_decay", "patience", "compile"})

    epochs: int = Field(60, gt=0)
    batch_size: int = Field(128, gt=0)
    accumulate: int = Field(1, gt=0)
    views_per_step: int = Field(1, gt=0)
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    optimizer: str = "sgd"
    learning_rate: float = Field(0.05, gt=0)
    layer_decay: float | None = Field(None, gt=0, le=1)
    weight_decay: float = Field(5e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    schedule: str = "cosine"
    warmup_epochs: int = Field(0, ge=0)
    milestones: tuple[int, ...] = (150, 180, 210)
    clip_gradient: float | None = Field(None, gt=0)
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    device: str = "auto"
    ema: float | None = Field(None, gt=0, lt=1)
    patience: int | None = Field(None, gt=0)
    view_offset: int = Field(0, ge=0)
    workers: int | None = Field(None, ge=0)
    resident: bool | Literal["auto"] = "auto"
    capture: bool = False
    compile: bool = False
    resident_gigabytes: float = Field(4.0, ge=0)
    checkpoint_epochs: int | None = Field(None, gt=0)
    tracker: TrackerChoice = None

    @model_validator(mode="after")
    def _a_sample_fits(self) -> Self:
        if self.batch_size < self.views_per_step:
            raise ValueError(f"batch_size must hold the {self.views_per_step} views of a sample (views_per_step)")
        return self

    @property
    def samples_per_step(self) -> int:
        """Return the most samples in an optimiser step."""
        return self.batch_size // self.views_per_step * self.accumulate

    def smallest_batch(self, samples: int) -> int:
        """Return the fewest images that the student sees at once: the batches of an epoch differ by one sample at most.

        Args:
            samples: that are learnt from.
        """
        batches = -(-samples // self.samples_per_step) * self.accumulate
        return max(1, samples // batches) * self.views_per_step

    def identity(self) -> dict[str, Any]:
        """Return what decides the weights after training, as plain JSON values."""
        return self.for_identity(*NOT_IN_THE_WEIGHTS)

    def refuse_without(self, key: str, *, labels: bool, holdout: bool) -> None:
        """Raise ConfigError for settings that need labels or a holdout where there are none.

        Args:
            key: the section that the error names.
            labels: whether the samples to learn from have some.
            holdout: whether samples are held out that networks can be scored on.
        """
        problems = []
        if self.patience is not None and not holdout:
            fix = "add `holdout: {count: 500}` to `data`, or leave `patience` out"
            what = "stops by the score on the holdout, and there is none"
            problems.append(Problem(f"{key}.patience", what, got=str(self.patience), fix=fix))
        if self.sampling == "balanced" and not labels:
            fix = "shuffle them (`sampling: shuffled`)"
            problems.append(Problem(f"{key}.sampling", "balances classes, and there are no labels", fix=fix))
        if problems:
            raise ConfigError(problems)


class TrainSection(Section):
    """Declares that the section `train` is read."""

    train: TrainConfig = TrainConfig()
