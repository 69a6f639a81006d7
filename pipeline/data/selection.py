"""Chooses the samples of a packed data set to learn from, and those to hold out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.data.config import DataConfig, LimitConfig
from pipeline.data.samples import Samples
from pipeline.data.split import Split
from pipeline.errors import DataError

HELD_OUT = "holdout.csv"
"""The file with the samples that were held out, in the folder of everything that was chosen or scored by them."""

_HOLDOUT_STREAM = 0x686F6C646F7574  # "holdout": keeps these random words apart from those of views
_LIMIT_STREAM = 0x6C696D6974  # "limit"


class Splits(Protocol):
    """Gives splits by name, as a packed data set does."""

    def split(self, name: str) -> Split:
        """Return the split `name`. Raises DataError if there is none."""


def select(dataset: Splits, config: DataConfig) -> tuple[Samples, Samples | None]:
    """Choose the samples to learn from and those held out (None if `config.holdout` is).

    Args:
        dataset: the packed file.

    Of split `config.split`, the part that `config.limit` says is used. Of that, `holdout.count` samples are held
    out: equally many of every class, as far as that leaves a class at least half of its samples; which ones
    depends on seed, positions and labels alone. Or all of the split `holdout.split` are. Where some of the samples
    that are learnt from have labels, those without are never held out: no accuracy could be scored on them. Where none
    has, any is. Raises DataError if that leaves nothing to learn from, or if there are no labels in the split that is
    to be held out, and some in that which is learnt from.
    """
    split = dataset.split(config.split)
    if split.count == 0:
        raise DataError(f"split {split.name!r} is empty")
    used, holdout = limited(split, config.limit), config.holdout
    if holdout is None:
        return Samples(split, used), None
    labels = np.full(len(used), -1) if split.labels is None else split.labels[used]
    unlabeled = bool(np.all(labels < 0))
    if holdout.split is not None:
        return Samples(split, used), _scored(dataset.split(holdout.split), unlabeled)
    free = np.arange(len(used)) if unlabeled else np.flatnonzero(labels >= 0)
    if holdout.count is None or holdout.count >= len(free):
        raise DataError(
            "the holdout leaves nothing to learn from",
            where="data.holdout.count",
            expected=f"fewer than the {len(free)} {'' if unlabeled else 'labeled '}samples of split {split.name!r}",
            got=holdout.count,
        )
    held = np.zeros(len(used), np.bool_)
    held[free] = _held_out(labels[free], holdout.count, holdout.seed)  # without labels, one class
    return Samples(split, used[~held]), Samples(split, used[held])


def limited(split: Split, limit: LimitConfig | None) -> NDArray[np.int64]:
    """Choose the positions that `data.limit` leaves of a split, ascending.

    Without a seed these are the first ones, if they are a fair part: as even over the classes as those of a random
    order. (Such files keep the meaning that a limit had in version 0.1; of files sorted by class the first would be
    a few classes.) Otherwise, and with a seed, they are
    drawn: class by class in turn, each in a random order of its own, so that a larger limit keeps the samples of
    a smaller one. Samples without a label have their share.
    """
    if limit is None or limit.count >= split.count:
        return np.arange(split.count)
    if limit.seed is None and _is_fair(split.labels, limit.count):
        return np.arange(limit.count)
    return np.flatnonzero(_drawn(split.labels, split.count, limit.count, limit.seed or 0))


def described(dataset: Splits, config: DataConfig, reported: str | None = None) -> Iterator[str]:
    """Yield a line about `limit` and one about `holdout`, if `config` has them: which samples they choose.

    Args:
        dataset: whose samples.
        reported: the split that results are reported on: a warning is given if it is also learnt from or chosen by, or
            has no labels.
    """
    split, limit, holdout = dataset.split(config.split), config.limit, config.holdout
    if limit is not None and limit.count < split.count:
        first = limit.seed is None and _is_fair(split.labels, limit.count)
        how = "the first" if first else f"drawn evenly from the classes with seed {limit.seed or 0}:"
        yield f"limit: {how} {limit.count:,} of the {split.count:,} samples of split {split.name}"
    if holdout is not None:
        whole = f"split {holdout.split}"
        evenly = "evenly from the classes" if split.labels is not None and np.any(split.labels >= 0) else "drawn"
        part = f"{holdout.count or 0:,} of them, {evenly} with seed {holdout.seed}"
        where = f"{HELD_OUT} in the folder of every student, and of a teacher that is trained here"
        yield f"held out: {whole if holdout.split else part}; the ids: {where}"
        if reported is not None and holdout.split == reported:
            yield f"warning: split {reported} is held out to choose by and reported too: its figures will be too good"
    if reported == split.name and split.labels is not None:
        yield f"warning: split {reported} is learnt from and reported too: its figures say nothing about other images"
    if reported is not None and ((labels := dataset.split(reported).labels) is None or np.any(labels < 0)):
        yield f"warning: split {reported} has images without labels: `evaluate` will want another evaluate.split"


def _scored(split: Split, unlabeled: bool) -> Samples:
    """The labeled samples of a split that is held out; any, if those that are learnt from are all `unlabeled`."""
    if unlabeled and (split.labels is None or np.all(split.labels < 0)):
        return Samples(split, np.arange(split.count))
    if split.labels is None or not np.any(split.labels >= 0):
        fix = "name a split with labels, or hold out a part of the training split: holdout: {count: N}"
        raise DataError(f"split {split.name!r} has no labels to score by", where="data.holdout.split", fix=fix)
    return Samples(split, np.flatnonzero(split.labels >= 0))


def _is_fair(labels: NDArray[np.int64] | None, count: int) -> bool:
    """Tell whether the first `count` samples are as even as those of a random order, or there are no labels.

    By the chi-squared statistic of their classes, whose mean is K - 1 in a random order, with variance 2 (K - 1): eight
    standard deviations above the mean are no chance. Files sorted by class are far beyond, except for few samples (ten
    of two classes): their order is looked at as well.
    """
    if labels is None:
        return True
    changes = int(np.count_nonzero(np.diff(labels)))
    if changes > 0 and changes == len(np.unique(labels)) - 1:
        return False  # class by class
    every = np.bincount(labels + 1)  # -1, for no label, is a class here
    share = count * every[every > 0] / len(labels)
    first = np.bincount(labels[:count] + 1, minlength=len(every))[every > 0]
    freedom = len(share) - 1
    return bool(np.sum((first - share) ** 2 / share) <= freedom + 8 * (2 * freedom) ** 0.5)


def _drawn(labels: NDArray[np.int64] | None, total: int, count: int, seed: int) -> NDArray[np.bool_]:
    """bool [N]: the share of the unlabeled ones, in random order, and labeled ones class by class in turn."""
    labels = np.full(total, -1) if labels is None else labels
    words = _words(seed, _LIMIT_STREAM, total)
    drawn = np.zeros(total, np.bool_)
    free, labeled = np.flatnonzero(labels < 0), np.flatnonzero(labels >= 0)
    of_free = (count * len(free) + total // 2) // total
    drawn[free[np.argsort(words[free], kind="stable")[:of_free]]] = True
    place, _ = _places(labels[labeled], words[labeled])
    drawn[labeled[np.lexsort((words[labeled], place))[: count - of_free]]] = True
    return drawn


def _held_out(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.bool_]:
    """bool [N]: every class in a random order of its own, then class by class in turn until it is enough."""
    words = _words(seed, _HOLDOUT_STREAM, len(labels))
    place, size = _places(labels, words)
    scarce = place >= size - (size + 1) // 2  # the half of its class that is held out last
    turn = np.lexsort((words, place, scarce))
    held = np.zeros(len(labels), np.bool_)
    held[turn[:count]] = True
    return held


def _words(seed: int, stream: int, count: int) -> NDArray[np.uint64]:
    """Raw words of a counter-based generator: NumPy promises them, not what its distributions make of them."""
    return np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(count)


def _places(labels: NDArray[np.int64], words: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of every sample its place in the random order of its class, and the size of that class."""
    order = np.lexsort((words, labels))
    classes, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) - np.repeat(first, sizes)
    return place, sizes[np.searchsorted(classes, labels)]
