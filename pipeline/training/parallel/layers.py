"""Finds layers of a network that processes cannot run as one does: by running it on made-up images."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.errors import ConfigError, Problem
from pipeline.models import Network

PROBES = 4
"""How often the network is run, each time on other images and with other random numbers."""

ALONE_HINT = "train it with one process, or choose another network"


class _Seen(TorchFunctionMode):
    """Notes the running statistics of every call of `torch.nn.functional.batch_norm`, and its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[int] = []
        self.calls: list[tuple[int, ...]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            given = [*args[1:3], *(each for name, each in (kwargs or {}).items() if name.startswith("running_"))]
            kept = [id(each) for each in given if each is not None]
            self.kept += kept
            self.calls.append((args[0].shape[1], *kept))
        return func(*args, **(kwargs or {}))


def refuse_layers(network: Network) -> None:
    """Raise ConfigError for layers that go by the rows of a batch otherwise than by `batch_norm`, or that are skipped.

    Args:
        network: the student, which is left as it was. It is run on a few random images.

    Found are layers whose running statistics depend on the images, such as EvoNorm-B, and layers with batch
    normalisation that are left out by chance: processes would wait for each other in different layers. A layer that
    looks at the whole batch and keeps nothing of it is not found.
    """
    training, kept = network.training, [(buffer, buffer.clone()) for buffer in network.buffers()]
    names = {id(buffer): name for name, buffer in network.model.named_buffers()}
    found: list[dict[str, Tensor]] = []
    calls: list[list[tuple[int, ...]]] = []
    handled: set[int] = set()
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    try:
        network.train()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            for number in range(PROBES):
                torch.manual_seed(number)
                shape = (4, network.pixels.channels[0], *network.pixels.sides)
                pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
                with _Seen() as seen:
                    network(pixels.to(device))
                handled.update(seen.kept)
                calls.append(seen.calls)
                found.append({names[id(each)]: each.clone() for each, _ in kept if id(each) in names})
                for buffer, value in kept:
                    buffer.copy_(value)
    finally:
        network.train(training)
    own = {name for key, name in names.items() if key not in handled}
    modules = dict(network.model.named_modules())
    changing = sorted(name for name in own if any(not torch.equal(found[0][name], other[name]) for other in found[1:]))
    kinds = sorted({_described(modules, name.rpartition(".")[0]) for name in changing})
    problems = []
    if kinds:
        what = "has layers that keep statistics of a batch in a way of their own, of which each process has a part"
        problems.append(Problem("students", what, got=", ".join(kinds[:4]), fix=ALONE_HINT))
    if any(each != calls[0] for each in calls[1:]):
        what = "leaves out layers by chance that normalise batches, and processes would leave out different ones"
        problems.append(Problem("students", what, fix="switch that off (such as `layerdrop`), or " + ALONE_HINT))
    if problems:
        raise ConfigError(problems)


def _described(modules: dict[str, nn.Module], name: str) -> str:
    return f"{type(modules[name]).__name__} ({name})"
