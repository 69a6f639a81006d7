"""Holds what was measured of a network, as plain numbers: who only reads them does not wait for torch."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Holds how good a network's logits, or its embeddings, are on `count` images.

    Args:
        top1, top5: fraction of labels among the 1 or 5 largest logits, in [0, 1]; top5 is 1 where K <= 5.
        nll: mean negative log-likelihood of the label, in nats.
        ece: expected calibration error, in [0, 1].
        agreement: fraction of images on which the most likely class is the teacher's, in [0, 1]; where one of the two
            has no logits, how many nearest neighbours of an image both have in common (`common_neighbours`).
        kl: mean KL(teacher || student) at temperature 1, in nats. Both None where no teacher was given. What reads
            logits and labels is None where there are none.
    """

    top1: float | None
    top5: float | None
    nll: float | None
    ece: float | None
    agreement: float | None
    kl: float | None
    count: int

    def to_json(self) -> dict[str, float | int | None]:
        """Return plain values, in the order of the fields."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class EmbeddingScores:
    """Holds how well a network's embeddings tell classes apart that it need not know.

    Args:
        knn, probe: share of images whose label is found by nearest neighbours, and by a linear probe, in [0, 1].
        labels_from: the split whose labeled images neighbours and probe learn from.
        images: how many of them there are.
    """

    knn: float
    probe: float
    labels_from: str
    images: int
