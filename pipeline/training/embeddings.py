"""Computes the inputs of a network's classifier, once, for every view of some samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.data import Samples
from pipeline.errors import ConfigError, ModelError, Problem
from pipeline.measuring.prediction import inference
from pipeline.models import Network
from pipeline.models.device import choose_device, choose_precision
from pipeline.progress import Progress
from pipeline.training.batches import Drawn, worker_count
from pipeline.training.config import TrainConfig
from pipeline.views import Views

EMBEDDED_ROWS = 64
"""Images that are rendered at once, in each of their views."""

_OF_LOGITS = 4
"""Tensors of the size of all logits that are there at once while a classifier is fitted."""


@dataclass(frozen=True)
class Seen:
    """Samples as a network is shown them: in views, each told by what draws it and its number."""

    samples: Samples
    views: Sequence[tuple[Views, int]]


class _Rendered(Dataset[list[Tensor]]):
    """Item i is the ith `EMBEDDED_ROWS` of consecutive samples: of each view uint8 [B, C, H, W]."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def __len__(self) -> int:
        return -(-self.seen.samples.count // EMBEDDED_ROWS)

    def __getitem__(self, index: int) -> list[Tensor]:
        samples = self.seen.samples
        rows = np.arange(index * EMBEDDED_ROWS, min((index + 1) * EMBEDDED_ROWS, samples.count), dtype=np.int64)
        images = samples.read(rows)
        return [v.apply(images, Drawn(v, samples).parameters(number, rows, images)) for v, number in self.seen.views]


def embed(network: Network, seen: Seen, config: TrainConfig, progress: Progress) -> Tensor:
    """Compute the embeddings [V, N, D] of every view of every sample, float32 on the CPU, in evaluation mode.

    The network lies on the device of `config` already. Progress counts images.
    """
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    resident = seen.samples.resident(int(config.resident_gigabytes * 2**30)) is not None
    workers = worker_count(config, resident)
    chunks: DataLoader[list[Tensor]] = DataLoader(_Rendered(seen), batch_size=None, num_workers=workers)
    (width,) = network.taps["embedding"]
    result, first = torch.empty(len(seen.views), seen.samples.count, width), 0
    with inference(network, precision, device):
        for chunk in chunks:
            last = first + len(chunk[0])
            for number, images in enumerate(chunk):
                said = network(images.to(device)).embedding
                assert said is not None
                result[number, first:last] = said.float().cpu()
            progress.advance(last - first)
            first = last
    return result


def refuse_to_embed(network: Network, rows: int, config: TrainConfig, key: str, *, holdout: bool) -> None:
    """Raise what is wrong with a probe of a network: ModelError for one without a linear classifier.

    ConfigError, at the section `key`, for more than memory is meant for (resident_gigabytes): all embeddings, twice
    where parts of them are set aside (no holdout) or some are drawn several times (`sampling: balanced`), and, for
    each row that is fitted, its logits, their logarithmic softmax and the gradients of both. rows: views of all
    samples.
    """
    if not network.linear_classifier:
        fix = f"fine-tune all of it instead, with `{key}: {{freeze: none, probe: 0}}`"
        raise ModelError(f"{network.name} has no linear classifier that a probe could fit", fix=fix)
    (width,) = network.taps["embedding"]
    copies = 1 if holdout and config.sampling == "shuffled" else 2
    gigabytes = 4 * rows * (copies * width + _OF_LOGITS * network.num_classes) / 2**30
    if gigabytes > config.resident_gigabytes:
        what = "is too many views for memory, with an embedding and logits of each"
        expected = f"at most {config.resident_gigabytes:g} GB, as {key}.resident_gigabytes says"
        fix = "learn from fewer views, or raise resident_gigabytes if this machine has the memory"
        raise ConfigError([Problem(f"{key}.probe", what, expected, f"{gigabytes:.1f} GB", fix)])
