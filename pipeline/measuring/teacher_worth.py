"""Measures what a cached teacher can teach: how right it is, how sure, how well it knows that, how wide its embedding.

From the cache alone. With z the teacher's logits of a view, p = softmax(z), z_1 and z_2 the two largest of them, p_1
and p_2 the two largest of p, in float64:

    entropy         mean of -Σ_k p_k log p_k, in nats
    ece             Σ_m |right_m - confidence_m| / N over 15 bins of equal width of the confidence p_1
    ratio_logits    mean of z_1 / z_2, over the views whose z_2 is positive: of others it means nothing. The study takes
                    all views; a z_2 next to 0 decides either mean, so it is printed if it is of nearly all views
    ratio_softmax   mean of p_1 / p_2 = exp(z_1 - z_2)
    margin          mean of z_1 - z_2, in nats: the logarithm of the geometric mean of that ratio
    rank            exp(-Σ_d q_d log q_d) of q = λ / Σ λ, the eigenvalues of the covariance of the embedding: the
                    effective rank of Roy and Vetterli (2007) of that matrix

The ratios are "Ratio 1-2" of arXiv 2605.15689 and its code (arkel23/FGIR-KD-Teacher). That of logits changes when a
constant is added to all of them, which changes no probability; that of probabilities does not, and a few views of which
the teacher is very sure decide its mean, unlike `margin`. Of caches that keep the k largest logits, the others share
what is left equally: the entropy is the largest that there may be, and with k = 1 there is no second logit.
`docs/choosing-a-teacher.md` says what each may tell.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.measuring.answers import Answers, calibration
from pipeline.measuring.measured import TeacherWorth
from pipeline.measuring.metrics import BINS
from pipeline.measuring.teacher_accuracy import sampled_rows
from pipeline.progress import Progress, Silent
from pipeline.store.location import StorePath
from pipeline.store.reader import TeacherCache
from pipeline.store.statistics import NUMBERS_AT_ONCE, compute_moments, kept_moments, kept_statistics

RANKED = 1024
"""Vectors whose rank is computed of a sample: the eigenvalues of that many take a third of a second."""
WIDEST = 8192
"""Numbers of an embedding whose covariance is computed over all views: of more, the matrix has above 512 MiB."""


def open_for_worth(path: StorePath | str) -> TeacherCache:
    """Open a cache to read what `teacher_worth` wants of it: logits and embedding, as far as it holds them.

    Args:
        path: of a finished cache.

    Raises as `TeacherCache.open` does.
    """
    cache = TeacherCache.open(path)
    return cache.select(() if cache.shapes.embedding is None else ("embedding",))


def teacher_worth(cache: TeacherCache, *, whole: bool = False, progress: Progress | None = None) -> TeacherWorth | None:
    """Measure what a cached teacher can teach; None of a cache with neither logits nor embedding.

    Args:
        cache: that reads the logits and the embedding, as far as it holds them.
        whole: read all samples and views; else at most 2,048 samples of the first view, from a few row blocks that are
            evenly spread, and 1,024 of them for the rank. Memory is bounded either way.
        progress: counts samples of views; None shows nothing.

    Raises CacheCorrupt if a file that is read is damaged, ModelError for logits that are not finite.
    """
    shapes, progress = cache.shapes, progress or Silent()
    if not shapes.logits and shapes.embedding is None:
        return None
    rows = np.arange(cache.count) if whole else sampled_rows(cache.count, cache.rows_per_block)
    views = list(cache.views) if whole else [cache.views.start]
    cached, labels = cache.count * len(cache.views), cache.labels
    found: dict[str, Any] = {"views": len(rows) * len(views), "cached": cached, **_classes(labels, rows)}
    if shapes.logits:
        tally = _Tally(shapes.logits)
        if cache.manifest.identity.views.partners is not None:
            labels = np.full_like(labels, -1)  # of two samples each: no label is the view's own
        step = max(1, NUMBERS_AT_ONCE // shapes.logits)
        progress.begin(f"what {cache.path} says", found["views"], "views")
        for view in views:
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                tally.add(cache.signal("logits", view, part), labels[part])
                progress.advance(len(part))
        progress.end()
        found |= tally.facts()
        arrays = cache.manifest.arrays
        if "logits.indices" in arrays and (kept := arrays["logits"].shape[-1]) < shapes.logits:
            found["kept"] = kept
            if kept == 1:
                found |= dict.fromkeys(("ratio_logits", "ratio_of", "ratio_softmax", "margin"))
    if shapes.embedding is not None:
        few = 2 * found.get("classes", 0) < found.get("cached_classes", 0)
        rank = {"width": shapes.embedding} if few else _rank(cache, shapes.embedding, rows, progress if whole else None)
        found |= rank
    return TeacherWorth(**found)


def _classes(labels: NDArray[np.int64], rows: NDArray[np.int64]) -> dict[str, int]:
    """Count the labels of some samples, and of all; nothing without labels. -1 is none."""
    known = labels[rows][labels[rows] >= 0]
    if not known.size:
        return {}
    return {"classes": len(np.unique(known)), "cached_classes": len(np.unique(labels[labels >= 0]))}


class _Tally:
    """Adds up what logits say, piece by piece."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._views = self._positive = 0
        self._confidence = self._entropy = self._margin = self._ratio = 0.0
        self._softmax = -math.inf  # the logarithm of the sum of ratios: the ratios themselves may be beyond any float
        self._counts, self._right = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
        self._sure = np.zeros(BINS)

    def add(self, logits: Tensor, labels: NDArray[np.int64]) -> None:
        """Add views. logits: [B, K]. labels: [B], -1 for none. Raises ModelError for logits that are not finite."""
        z = logits.double()
        if not bool(torch.isfinite(z).all()):
            raise ModelError("the teacher's cached logits are not finite", got=int((~torch.isfinite(z)).any(1).sum()))
        self._views += len(z)
        logs = torch.log_softmax(z, 1)
        self._entropy += float(-(logs.exp() * logs).sum())
        self._confidence += float(logs.amax(1).exp().sum())
        known = labels >= 0
        answers = Answers.of(z[torch.from_numpy(known)]) if known.any() else None
        if answers is not None:
            bins = calibration(answers, labels[known])
            self._counts += bins.counts
            self._sure += bins.confidence
            self._right += bins.right
        if self._classes < 2:
            return
        first, second = z.topk(2, 1).values.unbind(1)
        apart, positive = first - second, second > 0
        self._margin += float(apart.sum())
        self._softmax = float(np.logaddexp(self._softmax, float(apart.logsumexp(0))))
        self._ratio += float((first[positive] / second[positive]).sum())
        self._positive += int(positive.sum())

    def facts(self) -> dict[str, Any]:
        """Return the means."""
        views, labeled = self._views, int(self._counts.sum())
        found: dict[str, Any] = {
            "labeled": labeled,
            "confidence": self._confidence / views,
            "entropy": self._entropy / views,
            "most_entropy": math.log(self._classes),
        }
        if labeled:
            found["accuracy"] = float(self._right.sum()) / labeled
            found["ece"] = float(np.abs(self._right - self._sure).sum()) / labeled
        if self._classes > 1:
            mean = self._softmax - math.log(views)
            found["ratio_softmax"] = math.exp(mean) if mean < math.log(1e308) else math.inf
            found["margin"], found["ratio_of"] = self._margin / views, self._positive / views
            found["ratio_logits"] = self._ratio / self._positive if self._positive else None
        return found


def _rank(cache: TeacherCache, width: int, rows: NDArray[np.int64], whole: Progress | None) -> dict[str, Any]:
    """Return the rank. whole: counts the views, all of which are read; None for some of these rows of the first one."""
    if whole is not None and width <= WIDEST:
        there = "embedding" in kept_statistics(cache.path, cache.manifest.fingerprint)
        moments = (kept_moments if there else compute_moments)(cache, "embedding", whole)
        variances, vectors = np.linalg.eigvalsh(moments.covariance), moments.count
    else:
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(RANKED, len(rows))).round().astype(np.int64))]
        vectors = len(chosen)
        x = cache.signal("embedding", cache.views.start, chosen).double().numpy()
        x -= x.mean(0)
        # The eigenvalues of both products are the same but for zeros: the smaller one is computed.
        variances = np.linalg.eigvalsh(x.T @ x if width <= vectors else x @ x.T)
    return {"rank": effective_rank(variances), "vectors": vectors, "width": width}


def effective_rank(variances: NDArray[np.floating]) -> float:
    """Compute exp of the entropy of a spectrum: D of D equal variances, 1 where all but one are 0, 0 where all are.

    Args:
        variances: eigenvalues of a covariance, [D]; negative ones are rounding, and count as 0.
    """
    positive = variances[variances > 0]
    total = float(positive.sum())
    if not total:
        return 0.0
    shares = positive / total
    shares = shares[shares > 0]  # of numbers next to 0 some are 0 by now
    return float(np.exp(-(shares * np.log(shares)).sum()))
