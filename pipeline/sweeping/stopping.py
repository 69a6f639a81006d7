"""Says which tries are hopeless, by their scores on the holdout so far: the median rule.

After an epoch, the best score that a try had so far is compared with the median of the scores that the finished tries
had after that very epoch. If it is below, the try is stopped. It is the rule of Optuna's `MedianPruner`, which a test
compares it with. Nothing is stopped before `FINISHED` tries are finished, nor in the first third of the epochs, in
which scores say little of those at the end.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

FINISHED = 4
"""So many tries must be finished before one is stopped."""

WARMUP = 1 / 3
"""The share of the epochs in which none is stopped."""


class Hopeless(Exception):  # noqa: N818 - it is no error
    """Ends the training of a try that is stopped."""


def is_hopeless(curve: Sequence[float], others: Sequence[Sequence[float]], epochs: int) -> bool:
    """Tell whether a try is to be stopped after its last epoch.

    Args:
        curve: its scores after every epoch so far.
        others: the curves of all finished tries.
        epochs: of the training. After the last one nothing is to be stopped.
    """
    epoch = len(curve)
    if not curve or epoch >= epochs or epoch <= math.ceil(WARMUP * epochs) or len(others) < FINISHED:
        return False
    there = [other[epoch - 1] for other in others if len(other) >= epoch]
    return len(there) >= FINISHED and max(curve) < statistics.median(there)
