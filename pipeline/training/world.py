"""Declares what the processes that train one network do together; where there is one process, it does it alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.models import Network
from pipeline.signals import Signals
from pipeline.training.config import TrainConfig
from pipeline.training.share import Share
from pipeline.training.step import Step

Result = TypeVar("Result")


class World:
    """Trains in one process, and has nobody to share with. `training.parallel` has that of several processes.

    Attributes:
        share: which part of every batch this process renders and runs.
    """

    share = Share()

    def device(self, chosen: torch.device) -> torch.device:
        """Return the device of this process.

        Args:
            chosen: by the configuration.
        """
        return chosen

    def refuse(self, config: TrainConfig, samples: int) -> None:
        """Raise ConfigError for settings that so many processes cannot follow, such as batches that are too small.

        Args:
            config: of the training.
            samples: that are learnt from.
        """

    def refuse_network(self, network: Network) -> None:
        """Raise ConfigError for a network whose batches so many processes cannot share.

        Args:
            network: the student.
        """

    def begin(self, *modules: nn.Module) -> None:
        """Have all processes begin with the same weights.

        Args:
            modules: what is trained.
        """

    def signals(self, network: Callable[[Tensor], Signals], step: Step, views: int) -> Signals:
        """Run the network on the images of a batch, and return its signals of all samples of the batch.

        Args:
            network: the student.
            step: the batch.
            views: rows of each sample.
        """
        return network(step.images)

    def add_gradients(self, optimizer: Optimizer) -> None:
        """Add up what the processes have as gradients: afterwards all of them have those of the whole batch.

        Args:
            optimizer: of the parameters.
        """

    def first_does(self, work: Callable[[], Result]) -> Result:
        """Do some work in the first process alone, and return in all of them what it returned.

        Args:
            work: such as reading or writing a file.
        """
        return work()

    def first_holds(self, held: AbstractContextManager[object]) -> AbstractContextManager[object]:
        """Return `held` in the first process, and in others what holds nothing.

        Args:
            held: such as a folder that is locked.
        """
        return held


def seed_all(device: torch.device, seed: int) -> None:
    """Have torch's generators begin anew.

    Args:
        device: whose generator is used.
        seed: that they begin with.
    """
    if device.type == "cpu":  # torch.manual_seed takes milliseconds for devices that nobody uses
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
