"""Names the score that networks are ranked by: what it is called, which way is better, and how it is written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Describes a score of networks. Its values are fractions in [0, 1], and people read them in percent.

    Args:
        name: its key in files.
        title: what people call it.
        higher_is_better: which way is better.
    """

    name: str
    title: str
    higher_is_better: bool = True

    @property
    def column(self) -> str:
        """Return the name of the column in a run's history that has the score on the holdout."""
        return f"holdout_{self.name}"

    @property
    def heading(self) -> str:
        """Return the title with the unit: `top-1 (%)`."""
        return f"{self.title} (%)"

    def worth(self, value: float) -> float:
        """Return a number that is larger for better values.

        Args:
            value: of this score.
        """
        return value if self.higher_is_better else -value

    def text(self, value: float) -> str:
        """Write a value: `71.20%`."""
        return f"{value:.2%}"


TOP1 = Score("top1", "top-1")
"""The share of images whose label is the most likely class: the score of networks with a classifier."""

KNN = Score("knn", "kNN")
"""The share of images whose label is that of most of its nearest labeled neighbours, of networks without one."""

AGREEMENT = Score("agreement", "agreement")
"""How often a network agrees with the teacher: the score where there are no labels."""

SCORES = (TOP1, KNN, AGREEMENT)
"""Every score, the one that tells most first."""
