"""Computes a network's logits and embeddings of every image of some samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.models.device import Precision, reproducible
from pipeline.models.taps import evaluation_mode
from pipeline.progress import Progress, Silent
from pipeline.signals import Signals
from pipeline.views import sizes_of

if TYPE_CHECKING:
    from pipeline.data import Samples
    from pipeline.models import Network, WithReusedHead
    from pipeline.views import Views


def predict(
    network: Network | WithReusedHead,
    samples: Samples,
    views: Views,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Tensor:
    """Compute the logits float32 [N, K] of samples, as `predict_signals` does, without their embeddings.

    Args:
        network, views, device, precision, batch_size, progress: as of `predict_signals`.
    """
    return predict_signals(
        network,
        samples,
        views,
        device=device,
        precision=precision,
        batch_size=batch_size,
        progress=progress,
        embeddings=False,
    ).logits


def predict_signals(
    network: Network | WithReusedHead,
    samples: Samples,
    views: Views,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    batch_size: int = 256,
    progress: Progress | None = None,
    embeddings: bool = True,
) -> Signals:
    """Compute logits [N, K] and embeddings [N, D], float32 on the CPU, of the first view of samples, in their order.

    Args:
        views: of the samples.
        precision: of the arithmetic.
        batch_size: images in a pass.
        progress: counts images.
        embeddings: whether they are kept too.

    The network lies on `device` already. It runs in evaluation mode without gradients, and the mode of every module is
    restored afterwards.
    """
    progress = progress or Silent()
    view = views.numbers[0]
    progress.begin("evaluate", samples.count, "images")
    logits, vectors = [], []
    with inference(network, precision, device):
        for start in range(0, samples.count, batch_size):
            batch = np.arange(start, min(start + batch_size, samples.count), dtype=np.int64)
            images = samples.read(batch)
            sizes = sizes_of(images) if views.needs_sizes else None
            parameters = views.parameters(view, samples.positions[batch], sizes)
            pixels = views.apply(images, parameters).to(device)
            outputs: Signals = network(pixels)
            logits.append(outputs.logits.float().cpu())
            if embeddings and outputs.embedding is not None:
                vectors.append(outputs.embedding.float().cpu())
            progress.advance(len(batch))
    progress.end()
    return Signals(torch.cat(logits), torch.cat(vectors) if vectors else None)


@contextmanager
def inference(network: nn.Module, precision: Precision, device: torch.device | str) -> Iterator[None]:
    """Enter evaluation mode without gradients, reproducibly, in `precision` on `device`; restore modes at the end.

    Each module has a mode of its own: a network in training may hold frozen parts that are in evaluation mode.
    """
    device = torch.device(device)
    arithmetic = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with evaluation_mode(network), reproducible(device), torch.inference_mode(), arithmetic:
        yield
