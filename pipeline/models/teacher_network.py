"""Declares what a cache needs of a teacher: seven members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from pipeline.signals import Signals


@runtime_checkable
class TeacherNetwork(Protocol):
    """Names what a teacher cache needs of a network. The network is a `torch.nn.Module` as well.

    What `build_network` and `as_network` return has these members, whichever library its model is of; a class of yours
    with all seven can be cached too.

    Attributes:
        taps: the shape of every tap for one sample, by its name, from shallow to deep: `block1` to `blockS` are maps
            (C, H, W), `logits` is (K,), and `embedding` (D,), if there is one, is the vector that enters a linear head.
            A network without a classifier has no tap `logits`; its embedding is what it ends in.
        linear: whether the embedding is the mean of the deepest block's map, and the logits are linear in it.
        linear_final: the same of a map `final` behind the deepest block. False where there is none.

    Example:
        >>> from pipeline import TeacherNetwork, build_network
        >>> isinstance(build_network("cifar_resnet8", 10, input_size=8), TeacherNetwork)
        True
    """

    taps: Mapping[str, tuple[int, ...]]
    linear: bool
    linear_final: bool

    def keep_taps(self, taps: Sequence[str]) -> None:
        """Let `forward` return the maps of these taps and no others. Raises ModelError for a tap that is no map."""

    def forward(self, images: Tensor) -> Signals:
        """Return logits, embedding, head and the kept maps for uint8 images [B, C, H, W].

        The logits are [B, 0] without a classifier.

        In evaluation mode the outputs of an image must not depend on the other images of its batch.
        """

    def identity(self) -> dict[str, Any]:
        """Return what the network is, apart from its weights, as plain JSON values.

        It needs `model`, a name, and `num_classes`, 0 without a classifier. Whatever changes outputs belongs in it:
        preprocessing, options. A cache is refused for a teacher with another identity.
        """

    def weights_digest(self) -> str:
        """Return `sha256:...` of all weights and buffers: `pipeline.models.weights.digest_of(state_dict)`."""
