"""Holds what was measured of a network, as plain numbers: who only reads them does not wait for torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any


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


RATIO_OF_LEAST = 0.9
"""The share of views that the ratio of two logits must be of to be printed: else a few next to 0 decide it."""


@dataclasses.dataclass(frozen=True)
class TeacherWorth:
    """Holds what cached outputs of a teacher say about it.

    Args:
        views: how many views were looked at.
        cached: how many the cache has.
        labeled: of the views looked at, how many have one label of their own.
        classes: how many labels the samples looked at have; None without labels.
        cached_classes: how many those of the cache have.
        accuracy: share of the labeled views whose label has the largest logit, in [0, 1].
        ece: expected calibration error of the labeled views, in [0, 1].
        confidence: mean probability of the likeliest class, in [0, 1].
        entropy: mean entropy of the probabilities, in nats; with `kept`, the most that it may be.
        most_entropy: the largest that there could be, log K.
        kept: how many of the largest logits of a view the cache keeps; None for all of them.
        ratio_logits: mean ratio of the two largest logits.
        ratio_of: share of the views that this mean is of.
        ratio_softmax: mean ratio of the two largest probabilities; infinite beyond 1e308.
        margin: mean difference of the two largest logits, in nats.
        rank: effective rank of the embedding, from 1 to `width`; 0 of a single vector, or of equal ones. None if the
            samples looked at have less than half of the classes, which the rank would be that of.
        vectors: how many vectors this rank is of; it is at most as large.
        width: numbers of the embedding.

    What the cache does not hold is None: without logits only `rank` is there, without labels no `accuracy`, and of one
    logit that is kept no ratio and no `margin`.
    """

    views: int
    cached: int
    labeled: int = 0
    classes: int | None = None
    cached_classes: int | None = None
    accuracy: float | None = None
    ece: float | None = None
    confidence: float | None = None
    entropy: float | None = None
    most_entropy: float | None = None
    kept: int | None = None
    ratio_logits: float | None = None
    ratio_of: float | None = None
    ratio_softmax: float | None = None
    margin: float | None = None
    rank: float | None = None
    vectors: int | None = None
    width: int | None = None

    def facts(self) -> dict[str, Any]:
        """Return plain values, for programs; numbers that are not finite are null."""
        values = dataclasses.asdict(self).items()
        return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values}

    def lines(self) -> Iterator[str]:
        """Yield two lines for people: what the probabilities say and of how many views, and the rest."""
        said = []
        if self.accuracy is not None and self.ece is not None:
            said.append(f"right on {_percent(self.accuracy)}, calibration error {_percent(self.ece)}")
        if self.confidence is not None and self.entropy is not None:
            most = "" if self.most_entropy is None else f" of {self.most_entropy:.3g}"
            least = "" if self.kept is None else "at most "
            said.append(f"sure by {_percent(self.confidence)}, entropy {least}{self.entropy:.3g}{most} nats")
        whole = self.views == self.cached
        looked_at = f"all {self.cached:,} views" if whole else f"{self.views:,} of {self.cached:,} views"
        if self.classes is not None and self.classes != self.cached_classes:
            looked_at += f", which are of {self.classes:,} of {self.cached_classes:,} classes"
        yield "; ".join([*said, looked_at])
        rest = []
        if self.margin is not None:
            of = self.ratio_of or 0.0
            soft = "beyond 1e308" if self.ratio_softmax in (None, math.inf) else f"{self.ratio_softmax:.3g}"
            raw = f"logits of too few views ({of:.0%})"
            if self.ratio_logits is not None and of >= RATIO_OF_LEAST:
                raw = f"logits {self.ratio_logits:.3g}" + (f" ({of:.0%} of views)" if of < 1 else "")
            rest.append(f"largest to second: {raw}, probabilities {soft} (geometric mean {_power(self.margin)})")
        if self.rank is not None:
            rest.append(f"effective rank {self.rank:.1f} of {self.width:,} ({self.vectors:,} embeddings)")
        elif self.width is not None:
            rest.append("no effective rank of so few classes: `pipeline inspect --whole` reads all")
        if rest:
            yield "; ".join(rest)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _power(margin: float) -> str:
    """Write exp(margin), which may be beyond any float."""
    return f"{math.exp(margin):.3g}" if margin < math.log(1e300) else f"e^{margin:.0f}"
