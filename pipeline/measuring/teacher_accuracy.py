"""Tells how often a teacher's cached logits name the label: no more than chance, or with classes in another order?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.reader import TeacherCache

SAMPLED, BLOCKS = 2048, 8
"""Views that are looked at, and row blocks that they are in: reading a block checks all of its file."""
FEW_SAMPLES = 20
"""Labeled views of which an accuracy says nothing."""
DEVIATIONS = 3.0
ABOVE_CHANCE = 0.05
"""A teacher that gets less than this share of what chance leaves open has not learned these classes."""
ANOTHER_ORDER = 0.15
"""A new order of classes must be right that much more often, on views that it was not found with."""
PERMUTED_MOST_CLASSES = 2000
"""The table of all pairs of more classes is too large."""
CAUSES_HINT = (
    "weights without a classifier for these classes; images normalised otherwise than in the teacher's training "
    "(teacher.mean, teacher.std); the class order of another data set"
)


@dataclass(frozen=True)
class CachedAccuracy:
    """Holds the accuracy of cached logits on some training views.

    Args:
        count: number of views.
        accuracy: share of them where the largest logit is the label's.
        chance: what that share would be if logits had nothing to do with labels, as often as each is given.
        order: for every class of the teacher the label that it seems to mean, if that makes it right on `reordered` of
            the views; None if no order is much better than the one that there is.
    """

    count: int
    accuracy: float
    chance: float
    order: tuple[int, ...] | None
    reordered: float

    @property
    def near_chance(self) -> bool:
        """Tell whether the cached logits are as good as unrelated to the labels.

        Three standard deviations of a binomial count, or a twentieth of what chance leaves open: the more of both.
        """
        spread = (self.chance * (1 - self.chance) / self.count) ** 0.5
        margin: float = max(DEVIATIONS * spread, ABOVE_CHANCE * (1 - self.chance))
        return self.accuracy <= self.chance + margin

    def facts(self) -> dict[str, Any]:
        """Return plain values, for programs."""
        return {**asdict(self), "near_chance": self.near_chance}

    def sentences(self, names: Sequence[str]) -> Iterator[str]:
        """Say the accuracy, then warnings.

        Args:
            names: of the classes.
        """
        yield f"the teacher is right on {_percent(self.accuracy)} of {self.count:,} cached training views"
        if self.order is not None:
            moved = [(k, label) for k, label in enumerate(self.order) if k != label]
            shown = ", ".join(f"{k} is {names[label]} ({label} here)" for k, label in moved[:3])
            yield (
                f"warning: its classes seem to be in another order: with {len(moved)} of {len(self.order)} renamed it "
                f"would be right on {_percent(self.reordered)}; its class {shown}{', ...' if len(moved) > 3 else ''}. "
                "Pack the data with the classes in the teacher's order, or students learn wrong names"
            )
        elif self.near_chance:
            yield (
                f"warning: chance alone gives {_percent(self.chance)}, so students would learn nothing from it. "
                f"Causes: {CAUSES_HINT}"
            )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def cached_accuracy(cache: TeacherCache) -> CachedAccuracy | None:
    """Measure the accuracy on a part of the first view; None with too few labels, or of one class, or mixed views.

    Args:
        cache: of the teacher.

    None without logits, too.

    Raises CacheCorrupt if the files that are read are damaged.
    """
    if not cache.shapes.logits:
        return None
    labels, rows = cache.labels, sampled_rows(cache.count, cache.rows_per_block)
    rows = rows[labels[rows] >= 0]
    mixed = cache.manifest.identity.views.partners is not None
    if mixed or len(rows) < FEW_SAMPLES or len(np.unique(labels[rows])) < 2:
        return None
    logits = cache.signal("logits", cache.views.start, rows)
    return accuracy_of(labels[rows], logits.argmax(1).numpy(), logits.shape[1])


def accuracy_sentences(cache: TeacherCache, names: Sequence[str]) -> list[str]:
    """Say in words what `cached_accuracy` finds; nothing where it finds nothing.

    Args:
        names: of the classes.
        cache: of the teacher.
    """
    if cache.manifest.identity.views.partners is not None:
        return ["its views mix two samples each: how often the teacher is right, `pipeline evaluate` says"]
    found = cached_accuracy(cache)
    return list(found.sentences(names)) if found else []


def sampled_rows(count: int, block: int) -> NDArray[np.int64]:
    """Choose rows of 0..count-1, evenly from a few blocks that are evenly spread: data are often sorted by class.

    Args:
        block: rows in a block.
    """
    if count <= SAMPLED:
        return np.arange(count)
    blocks = -(-count // block)
    chosen = np.unique(np.linspace(0, blocks - 1, min(blocks, BLOCKS)).round().astype(np.int64))
    parts = []
    for number in chosen:
        rows = np.arange(number * block, min((number + 1) * block, count))
        parts.append(rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLED // len(chosen)).round().astype(np.int64))])
    return np.concatenate(parts)


def accuracy_of(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> CachedAccuracy:
    """Compare `labels` [N] with the classes [N] that the teacher predicted.

    Args:
        classes: K.
    """
    given = np.bincount(labels, minlength=classes) / len(labels)
    often = np.bincount(predicted, minlength=classes) / len(predicted)
    accuracy = float(np.mean(labels == predicted))
    order = _order(labels, predicted, classes)
    # The order is judged on views that it was not found with: of few views per class, some order always fits.
    halves = [slice(0, None, 2), slice(1, None, 2)]
    judged = [
        np.mean(_order(labels[a], predicted[a], classes)[predicted[b]] == labels[b]) for a, b in (halves, halves[::-1])
    ]
    reordered = float(np.mean(judged))
    better = reordered - accuracy > ANOTHER_ORDER
    return CachedAccuracy(
        len(labels), accuracy, float(given @ often), tuple(order.tolist()) if better else None, reordered
    )


def _order(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Find for every predicted class the label that fits it best, each label once: int64 [K]."""
    if classes > PERMUTED_MOST_CLASSES:
        return np.arange(classes)
    from scipy.optimize import linear_sum_assignment  # takes a moment

    together = np.zeros((classes, classes))
    np.add.at(together, (predicted, labels), 1)
    # Where nothing speaks for another label, a class keeps its own.
    together += np.eye(classes) / 2
    columns: NDArray[np.int64] = linear_sum_assignment(together, maximize=True)[1]
    return columns
