"""Tries what every network must keep, on one architecture."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.contracts.checks import NotTried
from pipeline.models import Network, build_network

TRIED_LOGITS = 7
"""The number of classes of the networks that are tried."""


class ArchitectureContract:
    """Holds the checks of one architecture.

    Args:
        model: its name, as in a configuration.
        options: of the teacher or student: `input_size`, and those of the architecture.
    """

    def __init__(self, model: str, options: Mapping[str, Any] | None = None) -> None:
        self._model = model
        self._options = dict(options or {})
        self._size = self._options.pop("input_size", None)

    def _build(self, classes: int = TRIED_LOGITS, **how: Any) -> Network:
        return build_network(self._model, classes, input_size=self._size, options=self._options, **how)

    @cached_property
    def _network(self) -> Network:
        return self._build(seed=0)

    def _pixels(self, count: int = 3) -> Tensor:
        size = self._network.input_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = (count, len(self._network.mean), height, width)
        return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(3), dtype=torch.uint8)

    def signals_have_the_shapes_of_its_taps(self) -> None:
        """Run it on three images."""
        network = self._network.eval()
        with torch.no_grad():
            outputs = network(self._pixels())
        shapes = {name: tuple(maps.shape[1:]) for name, maps in outputs.features.items()}
        assert shapes, "there is no map of a block"
        declared = {tap: shape for tap, shape in network.taps.items() if tap in shapes}
        assert declared == shapes, f"maps are {shapes}, and the taps say {declared}"
        assert outputs.embedding is not None, "there is no embedding"
        width = (3, *network.taps["embedding"])
        assert outputs.embedding.shape == width, f"the embedding is {list(outputs.embedding.shape)}, not {list(width)}"
        assert outputs.logits.shape == (3, TRIED_LOGITS), f"logits are {list(outputs.logits.shape)}, not [3, 7]"

    def its_head_makes_its_logits_of_its_embedding(self) -> None:
        """Compare the logits with those of the head alone."""
        network = self._network.eval()
        with torch.no_grad():
            outputs = network(self._pixels())
            if outputs.head is None:
                raise NotTried("it has no linear head: methods that read one refuse it")
            torch.testing.assert_close(outputs.head(outputs.embedding), outputs.logits, rtol=1e-4, atol=1e-5)

    def images_do_not_depend_on_each_other(self) -> None:
        """Run it on three images, and on one of them alone."""
        network, images = self._network.eval(), self._pixels()
        with torch.no_grad():
            together, alone = network(images).logits, network(images[:1]).logits
        torch.testing.assert_close(alone, together[:1], rtol=1e-4, atol=1e-5)

    def every_weight_learns(self) -> None:
        """Compute gradients of its logits and of all maps."""
        network = self._network.train()
        network.zero_grad()
        outputs = network(self._pixels())
        value = torch.stack([each.square().mean() for each in (outputs.logits, *outputs.features.values())]).sum()
        torch.autograd.backward([value])
        idle = [name for name, weight in network.named_parameters() if weight.grad is None]
        assert not idle, f"no gradient reaches {', '.join(idle)}"
        finite = all(bool(weight.grad.isfinite().all()) for weight in network.parameters() if weight.grad is not None)
        assert finite, "a gradient is not finite"

    def the_seed_decides_its_weights(self) -> None:
        """Build it three times, with two seeds."""
        first, again, other = (self._build(seed=seed).weights_digest() for seed in (0, 0, 1))
        assert first == again, "with one seed, weights differ"
        assert first != other, "with two seeds, weights are the same"

    def weights_go_to_a_file_and_back(self) -> None:
        """Save its weights, and build it from the file."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "weights.safetensors"
            self._network.save(file)
            assert self._build(weights=file).weights_digest() == self._network.weights_digest(), "weights are others"

    def a_student_begins_from_weights_for_other_classes(self) -> None:
        """Begin with its weights, for one more class: all but the classifier are kept."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "weights.safetensors"
            self._network.save(file)
            other = self._build(TRIED_LOGITS + 1, start=file, seed=1)
        assert other.kept is not None, "nothing was kept"
        before, after = self._network.state_dict(), other.state_dict()
        kept = [name for name, value in after.items() if name in before and value.equal(before[name])]
        assert kept, "no weight was kept"
