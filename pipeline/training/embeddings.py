"""Computes the embeddings of samples, the inputs of a network's classifier, once for each of their views."""

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
from pipeline.training.config import TrainConfig
from pipeline.training.loading import worker_count
from pipeline.views import SampleViews, Views

EMBEDDED_ROWS = 64
"""Images in a batch; each is rendered in all of its views."""

_LOGIT_TENSORS = 4
"""Tensors of the size of all logits that exist at the same time while a classifier is fitted."""


@dataclass(frozen=True)
class ProbeViews:
    """Holds samples and the views of them that a probe learns from, or is scored on.

    Args:
        views: what draws a view, and the number of the view, for each.
    """

    samples: Samples
    views: Sequence[tuple[Views, int]]


class _Rendered(Dataset[list[Tensor]]):
    """Renders batches of `EMBEDDED_ROWS` consecutive samples: for each view uint8 [B, C, H, W]."""

    def __init__(self, data: ProbeViews) -> None:
        self.data = data

    def __len__(self) -> int:
        return -(-self.data.samples.count // EMBEDDED_ROWS)

    def __getitem__(self, index: int) -> list[Tensor]:
        samples = self.data.samples
        rows = np.arange(index * EMBEDDED_ROWS, min((index + 1) * EMBEDDED_ROWS, samples.count), dtype=np.int64)
        images = samples.read(rows)
        return [SampleViews(samples, views).draw(number, rows, images).pixels for views, number in self.data.views]


def embed(network: Network, data: ProbeViews, config: TrainConfig, progress: Progress) -> Tensor:
    """Compute the embeddings of every view of every sample: float32 [V, N, D] on the CPU.

    Args:
        network: runs in evaluation mode; it must lie on the device of `config` already.
        data: V views of N samples.
        config: device, precision, workers.
        progress: counts samples.
    """
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    resident = data.samples.resident(int(config.resident_gigabytes * 2**30)) is not None
    workers = worker_count(config, resident)
    chunks: DataLoader[list[Tensor]] = DataLoader(_Rendered(data), batch_size=None, num_workers=workers)
    (width,) = network.taps["embedding"]
    result, first = torch.empty(len(data.views), data.samples.count, width), 0
    with inference(network, precision, device):
        for chunk in chunks:
            last = first + len(chunk[0])
            for number, images in enumerate(chunk):
                embedding = network(images.to(device)).embedding
                assert embedding is not None
                result[number, first:last] = embedding.float().cpu()
            progress.advance(last - first)
            first = last
    return result


def refuse_to_embed(network: Network, rows: int, config: TrainConfig, key: str, *, holdout: bool) -> None:
    """Raise an error if a linear probe of the network is not possible.

    Args:
        rows: views of all samples together.
        config: `resident_gigabytes` limits the memory.
        key: the section that an error names.
        holdout: whether there is a holdout with labels.

    Raises ModelError for a network without a linear classifier, and ConfigError if memory is not enough. What is needed
    is all embeddings, twice where some are set aside (no holdout) or drawn several times (`sampling: balanced`), and
    for each row its logits, their logarithmic softmax and the gradients of both.
    """
    if not network.linear_classifier:
        fix = f"fine-tune all of it instead, with `{key}: {{freeze: none, probe: 0}}`"
        raise ModelError(f"{network.name} has no linear classifier that a probe could fit", fix=fix)
    (width,) = network.taps["embedding"]
    copies = 1 if holdout and config.sampling == "shuffled" else 2
    gigabytes = 4 * rows * (copies * width + _LOGIT_TENSORS * network.num_classes) / 2**30
    if gigabytes > config.resident_gigabytes:
        what = "is too many views for memory, with an embedding and logits of each"
        expected = f"at most {config.resident_gigabytes:g} GB, as {key}.resident_gigabytes says"
        fix = "learn from fewer views, or raise resident_gigabytes if this machine has the memory"
        raise ConfigError([Problem(f"{key}.probe", what, expected, f"{gigabytes:.1f} GB", fix)])
