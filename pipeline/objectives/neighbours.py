"""Says how many neighbours of its samples a batch is to have: samples that are near to them in the teacher."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import Problem

FEWEST_GROUPS = 16
"""Of a batch, below which a note is given. The authors of CoSS have so many on each GPU."""


@dataclass(frozen=True)
class Neighbours:
    """Asks for batches in which samples come with neighbours: those that the teacher's embedding has near to them.

    Args:
        count: k, of each sample that a batch begins with. Its rows are groups of one such sample and k neighbours.
        nearest: among how many nearest ones they are drawn, anew in every epoch: at least k.
        teacher: the name of the teacher whose embedding it is; None for the one that objectives read which name none.
            An `ObjectiveSet` fills it in.
    """

    count: int
    nearest: int
    teacher: str | None = None

    def __str__(self) -> str:
        of = f" of {self.teacher!r}" if self.teacher else ""
        return f"{self.count} of the {self.nearest} nearest{of}"


def named_wishes(wishes: Iterable[tuple[str | None, Neighbours | None]]) -> list[Neighbours | None]:
    """Return what each objective asks for, with the name of the teacher whose neighbours these are.

    Args:
        wishes: of each objective, with the name of its teacher.
    """
    return [wish and replace(wish, teacher=teacher) for teacher, wish in wishes]


def one_wish(wishes: Iterable[Neighbours | None]) -> Neighbours | None:
    """Return what a batch is to have for several objectives; None if none of them asks for neighbours.

    Args:
        wishes: of each objective; those that are not None are the same.
    """
    return next((each for each in wishes if each is not None), None)


def differing_wishes(key: str, wishes: Sequence[Neighbours | None]) -> list[Problem]:
    """Return the problems of objectives that would have a batch with other neighbours than the first of them.

    Args:
        key: the dotted key of the list of objectives, that problems name.
        wishes: what each asks for.
    """
    wanted = one_wish(wishes)
    what, fix = "asks for other neighbours than an objective before it, and a batch has one kind", "give both the same"
    return [
        Problem(f"{key}.{index}", what, expected=str(wanted), got=str(each), fix=fix)
        for index, each in enumerate(wishes)
        if each is not None and each != wanted
    ]


def few_groups(wanted: Neighbours | None, samples: int) -> list[str]:
    """Return a note where batches would have few groups, and so images of few kinds; an empty list where they do not.

    Args:
        wanted: what a batch is to have; None for no neighbours.
        samples: of a batch.

    Few kinds of images are bad for batch normalisation, and for objectives beside the one that asks for neighbours.
    """
    groups = samples if wanted is None else -(-samples // (1 + wanted.count))
    if groups >= FEWEST_GROUPS or wanted is None:
        return []
    what = f"a batch of {samples} samples is {groups} groups of a sample and {wanted.count} neighbours"
    return [
        f"{what}: with fewer than {FEWEST_GROUPS} students get worse; raise `batch_size`, or ask for fewer neighbours"
    ]
