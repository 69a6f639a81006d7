"""The section `train`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Section


class TrainConfig(Section):
    """How a network is trained.

    batch_size: the largest batch, counted in views; the batches of an epoch differ by one sample at most.
    views_per_step: m different views of a sample are in adjacent rows of a batch, and each epoch has m of each.
    optimizer, schedule: names of timm's factories (`sgd` is SGD with Nesterov momentum; `cosine`, `multistep`).
    learning_rate: the peak. warmup_epochs: linear from a hundredth of it. milestones: the epochs after which
    `multistep` divides it by ten. clip_gradient: largest norm of the gradient. precision: `auto` is bfloat16
    where the device computes it in hardware. device: `auto`, `cpu`, `cuda`, `cuda:1`. ema: decay of an
    exponential moving average of the weights, which is then what is scored and saved. view_offset: epoch e uses
    view (e + view_offset) mod V, or, with m views per step, the m views from (m e + view_offset) mod V on.
    workers: processes that decode large data sets; null chooses.
    resident_gigabytes: data sets up to this size stay in memory. checkpoint_epochs: epochs between checkpoints.
    """

    epochs: int = Field(60, gt=0)
    batch_size: int = Field(128, gt=0)
    views_per_step: int = Field(1, gt=0)
    optimizer: str = "sgd"
    learning_rate: float = Field(0.05, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    schedule: str = "cosine"
    warmup_epochs: int = Field(0, ge=0)
    milestones: tuple[int, ...] = (150, 180, 210)
    clip_gradient: float | None = Field(None, gt=0)
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    device: str = "auto"
    ema: float | None = Field(None, gt=0, lt=1)
    view_offset: int = Field(0, ge=0)
    workers: int | None = Field(None, ge=0)
    resident_gigabytes: float = Field(4.0, ge=0)
    checkpoint_epochs: int = Field(1, gt=0)

    @model_validator(mode="after")
    def _a_sample_fits(self) -> Self:
        if self.batch_size < self.views_per_step:
            raise ValueError(f"batch_size must hold the {self.views_per_step} views of a sample (views_per_step)")
        return self
