"""Renders views and runs the teacher on them, one micro-batch at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ConfigError, Problem, during, unknown_name
from pipeline.models.device import Precision, reproducible
from pipeline.models.taps import evaluation_mode
from pipeline.signals import LinearHead, Signals, SignalsConfig, extract, taps_read
from pipeline.signals.lowpass import lowpass
from pipeline.views import SampleViews, digest, view_of

if TYPE_CHECKING:
    from pipeline.data import Samples
    from pipeline.data.split import Images
    from pipeline.models import TeacherNetwork
    from pipeline.views import Views


class Rendered(NamedTuple):
    """Holds rendered views of B samples.

    Args:
        images: uint8 [M, C, H, W], of which the last M - B repeat the last view.
        parameters: what was drawn for the views, int32 [B, P].
        digests: of their pixels, uint64 [B].
    """

    images: Tensor
    parameters: NDArray[np.int32]
    digests: NDArray[np.uint64]


@dataclass(frozen=True)
class PendingOutputs:
    """Holds the outputs of the teacher for B views; on a GPU, they may not have arrived on the CPU yet.

    Args:
        values: signals [B, ...] by name.
        head: the teacher's, on its device.
        arrived: when the copies are done; None if they are.
    """

    values: dict[str, Tensor]
    head: LinearHead | None
    arrived: torch.cuda.Event | None

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Wait for the copies, and return the signals by name: float32 [B, ...]."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return {name: value.numpy() for name, value in self.values.items()}


class TeacherPass:
    """Runs a teacher on views of samples, and reduces its outputs to the signals that are kept.

    Micro-batches have one fixed size, since results differ in their last bits between sizes of a batch. Inside
    `inference_mode` the network returns the maps that are kept and no others.

    Args:
        network: the teacher.
        samples, views: what it is run on.
        config: which signals are kept.
        device, precision: of the computation.
        micro_batch: views in a micro-batch.

    Raises ConfigError or ModelError for unknown taps.
    """

    def __init__(
        self,
        network: TeacherNetwork,
        samples: Samples,
        views: Views,
        config: SignalsConfig,
        *,
        device: torch.device,
        precision: Precision,
        micro_batch: int,
    ) -> None:
        self.network, self.samples, self.views, self.config = network, samples, views, config
        self.device, self.precision, self.micro_batch = device, precision, micro_batch
        self._features = chosen_blocks(list(network.taps), config)
        self._extras = chosen_extras(list(network.taps), config)
        self._maps = [*self._features, *(tap for taps in self._extras.values() for tap in taps)]
        network.keep_taps(self._maps)

    @contextmanager
    def inference_mode(self) -> Iterator[None]:
        """Move the network to its device and run it there in evaluation mode, reproducibly and without gradients."""
        self.network.keep_taps(self._maps)  # others may use the network in between
        network: Any = self.network
        network.to(device=self.device, memory_format=torch.channels_last)
        enabled = self.precision == "bfloat16"
        arithmetic = torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)
        with evaluation_mode(network), reproducible(self.device), torch.inference_mode(), arithmetic:
            yield

    def render(self, view: int, rows: range, size: int | None = None, images: Images | None = None) -> Rendered:
        """Render a view of consecutive samples.

        Args:
            view: the number of the view.
            rows: the samples.
            size: how many images there are after padding; None is the size of a micro-batch.
            images: theirs, if they were read already.
        """
        samples = np.arange(rows.start, rows.stop, dtype=np.int64)
        with during(lambda: view_of(self.samples, view, samples)):
            parameters, pixels = SampleViews(self.samples, self.views).draw(view, samples, images)
        digests = digest(pixels)
        if missing := (size or self.micro_batch) - len(pixels):
            pixels = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)])
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        return Rendered(pixels, parameters, digests)

    def signals(self, images: Tensor) -> Signals:
        """Compute the signals that are kept, in `inference_mode`: float32 on the device.

        Args:
            images: uint8 [M, C, H, W].
        """
        network: Any = self.network
        outputs: Signals = network(images.to(self.device, non_blocking=True))
        features = self.config.features
        maps = {}
        if features is not None:
            maps = {t: lowpass(outputs.features[t], features.grid, features.filter) for t in self._features}
        extras = {name: extract(name, *(outputs.features[tap] for tap in taps)) for name, taps in self._extras.items()}
        embedding = None if outputs.embedding is None else outputs.embedding.float()
        return Signals(outputs.logits.float(), embedding, maps, outputs.head, extras)

    def infer(self, rendered: Rendered, names: Sequence[str]) -> PendingOutputs:
        """Run the network on rendered views; on a GPU, return before it has finished.

        Args:
            names: the signals to return, such as `logits` and `features/block3`.
        """
        signals, count = self.signals(rendered.images), len(rendered.digests)
        # On an accelerator the copies land in page-locked memory while the next micro-batch is computed.
        values = {name: signal_of(signals, name)[:count].to("cpu", non_blocking=True) for name in names}
        if self.device.type != "cuda":
            return PendingOutputs(values, signals.head, None)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(torch.cuda.current_stream(self.device))  # not of the device that is this thread's current one
        return PendingOutputs(values, signals.head, arrived)


def chosen_blocks(taps: Sequence[str], config: SignalsConfig) -> tuple[str, ...]:
    """Return the taps whose maps are kept.

    Args:
        taps: all of the network, from shallow to deep.
        config: which signals are kept.

    Raises ConfigError for blocks that the network does not have.
    """
    if config.features is None:
        return ()
    wanted = config.features.blocks
    blocks = [tap for tap in taps if re.fullmatch(r"block\d+", tap)]
    if isinstance(wanted, tuple):
        known = [tap for tap in taps if tap not in ("embedding", "logits")]
        key = "signals.features.blocks"
        if problems := [unknown_name(key, tap, known) for tap in wanted if tap not in known]:
            raise ConfigError(problems)
        return tuple(tap for tap in taps if tap in wanted)
    if wanted is not None and wanted > len(blocks):
        what = "asks for more blocks than the teacher has"
        raise ConfigError([Problem("signals.features.blocks", what, f"at most {len(blocks)}", str(wanted))])
    return tuple(blocks[-wanted:] if wanted else blocks)


def chosen_extras(taps: Sequence[str], config: SignalsConfig) -> dict[str, tuple[str, ...]]:
    """Return the names of the extra signals that are kept, each with the taps that it is computed from.

    Args:
        taps: all of the network, from shallow to deep.
        config: which signals are kept.

    Raises ConfigError for signals that the network does not have.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    problems: list[Problem] = []
    for index, extra in enumerate(config.extras):
        try:
            chosen[extra.name] = taps_read(extra.name, taps, f"signals.extras.{index}.name")
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return chosen


def signal_of(signals: Signals, name: str) -> Tensor:
    """Return the signal with this name: `logits`, `embedding`, `features/<tap>`, `extras/<signal>/<tap>`.

    Args:
        signals: of the teacher.
    """
    kind, _, rest = name.partition("/")
    if rest:
        tensors = signals.features if kind == "features" else signals.extras
        return tensors[rest]
    tensor = signals.logits if kind == "logits" else signals.embedding
    assert tensor is not None, name
    return tensor
