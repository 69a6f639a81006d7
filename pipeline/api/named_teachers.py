"""Says what is read of several teachers, by their names, and holds their heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from pipeline.errors import ArgumentError, unknown_name
from pipeline.signals import LinearHead
from pipeline.training import FromCaches

BETWEEN = ":"
"""Stands between the name of a teacher and a signal of it: `siglip:embedding`."""


def reading(source: FromCaches, signals: Collection[str]) -> FromCaches:
    """Return the source with those signals alone that are named: `embedding`, and of other teachers `siglip:embedding`.

    Args:
        source: the caches.
        signals: names. Other teachers of whom none is named are not read.

    Raises ArgumentError for teachers that are not there.
    """
    own: set[str] = set()
    others: dict[str, set[str]] = {}
    for signal in signals:
        name, between, rest = signal.partition(BETWEEN)
        if not between or name == source.own:
            own.add(rest or name)
        elif name in source.others:
            others.setdefault(name, set()).add(rest)
        else:
            known = [each for each in (source.own, *source.others) if each is not None]
            raise ArgumentError([unknown_name("signals", name, known)], "the loader")
    kept = {"logits", "head"}  # logits are read in any case, and no head is part of a batch
    return source.reading(own - kept, {name: each - kept for name, each in others.items()})


class KnownHeads(nn.Module):
    """Holds the heads that objectives read, as buffers: they move with the module, and are not saved.

    Args:
        heads: by the names of their teachers; None for that of the cache's own teacher.
    """

    def __init__(self, heads: Mapping[str | None, LinearHead]) -> None:
        super().__init__()
        self._flags = {name: (head.linear, head.linear_final) for name, head in heads.items()}
        for name, head in heads.items():
            for part, tensor in zip(self._buffers_of(name), (head.weight, head.bias), strict=True):
                self.register_buffer(part, tensor, persistent=False)

    def of(self, name: str | None) -> LinearHead | None:
        """Return the head of a teacher, on the module's device; None if none is read of it.

        Args:
            name: of the teacher; None for the cache's own.
        """
        if name not in self._flags:
            return None
        weight, bias = (self.get_buffer(part) for part in self._buffers_of(name))
        return LinearHead(weight, bias, *self._flags[name])

    def others(self) -> dict[str, LinearHead]:
        """Return the heads of the teachers that objectives name."""
        return {name: head for name in self._flags if name is not None and (head := self.of(name)) is not None}

    def _buffers_of(self, name: str | None) -> tuple[str, str]:
        """Names without that of the teacher, which may have a dot: buffers may not."""
        place = list(self._flags).index(name)
        return f"weight{place}", f"bias{place}"
