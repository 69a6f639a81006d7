"""Has the processes that `torchrun` has begun train one network: each runs its slice of every batch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous
from torch.optim import Optimizer

from pipeline.errors import ConfigError, Problem
from pipeline.models import Network
from pipeline.signals import Signals
from pipeline.training.config import TrainConfig
from pipeline.training.parallel.batch_norm import WholeBatchNorm
from pipeline.training.parallel.collectives import HANG_LIMIT, GatheredRows, all_there
from pipeline.training.parallel.gradients import add_gradients
from pipeline.training.parallel.layers import refuse_layers
from pipeline.training.share import Share
from pipeline.training.step import Step
from pipeline.training.world import Result, World, seed_all

PATIENCE = timedelta(days=2)
"""How long processes wait for work that one does for all, such as comparing all pixels. `torchrun` ends all if one
ends."""

SLICE = timedelta(seconds=1)
"""How long a process waits without looking for signals."""


class SeveralProcesses(World):
    """Trains in several processes, whose group has been made.

    Args:
        share: which part of every batch this process renders and runs.
        store: what all processes write to and read; None for none.
    """

    def __init__(self, share: Share, store: Store | None = None) -> None:
        self.share, self._store = share, store
        self._done = 0

    def is_to_say(self, text: str) -> bool:
        """Tell whether this process is the first that asks for a text, and so the one to print it.

        Args:
            text: such as an error that several processes have.
        """
        return self._store is None or self._store.add(f"said/{text}", 1) == 1

    def device(self, chosen: torch.device) -> torch.device:
        """Return the device of this process: of several GPUs, the one with its number on this machine.

        Args:
            chosen: by the configuration.

        Raises ConfigError if the configuration names one GPU, or if there are fewer than processes.
        """
        if chosen.type != "cuda":
            return chosen
        there, fix = torch.cuda.device_count(), "set train.device: auto"
        if chosen.index is not None:
            what = "names one GPU, and each process needs one of its own"
            raise ConfigError([Problem("train.device", what, "cuda, or auto", str(chosen), fix)])
        if there < self.share.local:
            what = f"{self.share.local} processes of this machine need a GPU each"
            fix = f"--nproc-per-node {there}, or train.device: cpu"
            raise ConfigError([Problem("train.device", what, got=f"{there} of them", fix=fix)])
        own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", self.share.rank)))
        torch.cuda.set_device(own)  # NCCL, and what names no ordinal, would take the first GPU in every process
        return own

    def refuse(self, config: TrainConfig, samples: int) -> None:
        """Raise ConfigError for batches that are too small, and for settings of one process.

        Args:
            config, samples: as of `World.refuse`.
        """
        problems = [
            Problem(f"train.{name}", "is for one process alone", got="true", fix="leave it out, or start one process")
            for name in ("capture", "compile")
            if getattr(config, name)
        ]
        smallest = config.smallest_batch(samples) // config.views_per_step
        if smallest < self.share.size:
            what = f"each of the {self.share.size} processes needs a sample of every batch"
            fix = "raise it, or start fewer processes"
            problems.append(Problem("train.batch_size", what, got=f"batches of {smallest}", fix=fix))
        if problems:
            raise ConfigError(problems)

    def refuse_network(self, network: Network) -> None:
        """Raise ConfigError for layers that processes cannot run as one does.

        Args:
            network: as of `World.refuse_network`.
        """
        refuse_layers(network)

    def begin(self, *modules: nn.Module) -> None:
        """Give all processes the weights of the first.

        Args:
            modules: as of `World.begin`.
        """
        with torch.no_grad():
            for module in modules:
                for tensor in module.state_dict().values():
                    whole = tensor.contiguous()
                    with all_there():
                        dist.broadcast(whole, 0)
                    tensor.copy_(whole)

    def signals(self, network: Callable[[Tensor], Signals], step: Step, views: int) -> Signals:
        """Run the network on the images of this process, and return the signals of the whole batch.

        Args:
            network, step, views: as of `World.signals`.

        What a network draws differs among the processes; what is drawn afterwards does not.
        """
        device = step.images.device
        drawn = int(torch.randint(2**62, ()))
        seed_all(device, drawn + 1 + self.share.rank)
        with WholeBatchNorm():
            own = network(step.images)
        seed_all(device, drawn)
        counts = [samples * views for samples in self.share.counts(len(step.sample) // views)]

        def whole(tensor: Tensor) -> Tensor:
            if not tensor.shape[1:].numel():  # logits of no classes
                return tensor.new_empty((sum(counts), *tensor.shape[1:]))
            gathered: Tensor = GatheredRows.apply(tensor, counts, self.share.rank)
            return gathered

        return replace(
            own,
            logits=whole(own.logits),
            embedding=None if own.embedding is None else whole(own.embedding),
            features={tap: whole(maps) for tap, maps in own.features.items()},
        )

    def add_gradients(self, optimizer: Optimizer) -> None:
        """Add up the gradients of all processes.

        Args:
            optimizer: of the parameters.
        """
        add_gradients(parameter for group in optimizer.param_groups for parameter in group["params"])

    def first_does(self, work: Callable[[], Result]) -> Result:
        """Do some work in the first process alone; the others wait for what it returns, as pickled.

        Args:
            work: such as reading or writing a file. It may take hours: the others wait until they are told that it is
                done, and not in the exchange of what it returned, for which there is less time.
        """
        assert self._store is not None
        self._done += 1
        box: list[Any] = [work() if self.share.rank == 0 else None]
        with all_there():
            if self.share.rank == 0:
                self._store.set(f"done/{self._done}", "")
            else:
                wait_for(f"done/{self._done}", self._store)
            dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        result: Result = box[0]
        return result

    def first_holds(self, held: AbstractContextManager[object]) -> AbstractContextManager[object]:
        """Return `held` in the first process, and in others what holds nothing.

        Args:
            held: such as a folder that is locked.
        """
        return held if self.share.rank == 0 else nullcontext()


def wait_for(key: str, store: Store) -> None:
    """Wait until a store has a key. Raises RuntimeError, as torch does, after `PATIENCE`, or if the store is lost.

    Args:
        key: that another process sets.
        store: of all processes.

    It waits in slices, between which Python sees signals: else this process would not end when `torchrun` asks it to.
    """
    end = time.monotonic() + PATIENCE.total_seconds()
    while True:
        try:
            store.wait([key], SLICE)
            return
        except dist.DistStoreError:
            if time.monotonic() >= end:
                raise


@contextmanager
def group_of_torchrun() -> Iterator[SeveralProcesses]:
    """Join the processes that `torchrun` has begun, and leave them at the end.

    Tensors of CPUs go by gloo, those of GPUs by NCCL, where torch has it.
    """
    store, rank, size = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=HANG_LIMIT)
    yield SeveralProcesses(Share(rank, size, int(os.environ.get("LOCAL_WORLD_SIZE", size))), store)
    dist.destroy_process_group()  # not after an error: others wait, and are to see that this one ends
