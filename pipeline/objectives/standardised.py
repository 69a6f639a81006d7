"""Gives an objective its teacher's embeddings and maps standardised: of batches, and of what it reads of the cache."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from pipeline.errors import Problem
from pipeline.objectives.base import Context, Needs
from pipeline.signals import Signals
from pipeline.signals.standardisation import Standardisation, Standardise, standardise

STANDARDISED_KINDS = ("embedding", "features/")
"""The signals that are standardised: logits have a scale that means something, and extra signals are no vectors."""


class StandardisedTeacher(nn.Module):
    """Standardises the signals of a teacher that one objective reads.

    Args:
        how: which way.
        context: of the run, with the moments of the teacher's signals; where it has none, as long as there is no cache,
            nothing is standardised.

    Mean and matrix of each signal are buffers, which move with the module and are not saved: they are those of the
    cache. They are kept on the CPU too, where the bank is read in each step: a GPU is neither copied from for it, nor
    waited for.
    """

    def __init__(self, how: Standardise, context: Context) -> None:
        super().__init__()
        self.how, self._context = how, context
        self._buffer_names: dict[str, tuple[str, str]] = {}
        self._on_cpu: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def context(self) -> Context:
        """Return the context for the objective: its bank and its means of classes are standardised too."""
        bank, means = self._context.bank, self._context.class_means
        if bank is None or means is None:
            return self._context

        def read(signal: str, samples: Tensor, view: int) -> Tensor:
            values = bank(signal, samples, view)
            return self.apply_to(signal, values) if signal in self._buffer_names else values

        # A mean of classes is a mean of embeddings, and the map is affine.
        return replace(self._context, bank=read, class_means=lambda: self.apply_to("embedding", means()))

    def bind(self, needs: Needs, key: str) -> list[Problem]:
        """Compute what standardises the signals that an objective reads; return what is wrong with standardising them.

        Args:
            needs: of the objective.
            key: the dotted key that problems name.
        """
        read = sorted(signal for signal in needs.teacher if signal.startswith(STANDARDISED_KINDS))
        if problems := self._problems(needs, read, key):
            return problems
        moments = self._context.moments
        for signal in read if moments is not None else ():
            assert moments is not None
            tensors = self._on_cpu[signal] = Standardisation.of(moments(signal), self.how).tensors()
            base = signal.replace("/", "_")
            names = self._buffer_names[signal] = f"{base}_mean", f"{base}_weight"
            for name, tensor in zip(names, tensors, strict=True):
                self.register_buffer(name, tensor, persistent=False)
        return []

    def _problems(self, needs: Needs, read: list[str], key: str) -> list[Problem]:
        fix = "leave `standardise` out"
        if "head" in needs.teacher:
            return [Problem(key, "reads the teacher's head, which belongs to embeddings as they are", fix=fix)]
        if extras := sorted(signal for signal in needs.teacher if signal.startswith("extras/")):
            return [Problem(key, f"reads {', '.join(extras)}, which cannot be standardised", fix=fix)]
        if not read:
            return [Problem(key, "reads neither embedding nor maps of a teacher, so nothing is standardised", fix=fix)]
        return []

    def apply_to(self, signal: str, values: Tensor) -> Tensor:
        """Return a signal standardised, on its own device.

        Args:
            signal: its name.
            values: [B, ...].
        """
        if values.device.type == "cpu":
            return standardise(values, *self._on_cpu[signal])
        mean, weight = (getattr(self, name).to(values.device) for name in self._buffer_names[signal])
        return standardise(values, mean, weight)

    def forward(self, teacher: Signals) -> Signals:
        """Return the signals of a batch, those standardised that the objective reads."""
        maps = dict(teacher.features)
        for signal in self._buffer_names:
            if signal.startswith("features/"):
                tap = signal.removeprefix("features/")
                maps[tap] = self.apply_to(signal, maps[tap])
        embedding = teacher.embedding
        if embedding is not None and "embedding" in self._buffer_names:
            embedding = self.apply_to("embedding", embedding)
        return replace(teacher, embedding=embedding, features=maps)
