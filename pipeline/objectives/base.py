"""Declares what an objective is given and what it returns, and builds one from its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipeline import plugins
from pipeline.errors import CACHE_COMMAND, ConfigError, Problem, unknown_name
from pipeline.objectives.batch import Batch as Batch
from pipeline.objectives.batch import MixedLabels as MixedLabels
from pipeline.objectives.config import METHODS
from pipeline.objectives.neighbours import Neighbours as Neighbours
from pipeline.signals import Signals, SignalShapes, block_number
from pipeline.signals.lowpass import find_filter
from pipeline.signals.moments import Moments

if TYPE_CHECKING:
    from pipeline.models.reused import KeptPart

CACHE_IT_HINT = f"add it to `signals` and run {CACHE_COMMAND} again"
NO_LOGITS_HINT = "use objectives that read embeddings or features, such as vkd, pkt and lfcc"
NO_CLASSES_HINT = (
    f"{NO_LOGITS_HINT}; or give the teacher a classifier: leave `teacher.head: none` out, or name `teacher.text_head`"
)
NO_HEAD_HINT = "the teacher has no linear head, as every ensemble: use another objective"


@dataclass(frozen=True)
class Context:
    """Holds what an objective is given of the whole run.

    Args:
        num_samples: N.
        classes: K.
        labels: int64 [N], -1 for none; None without any.
        seed: of random choices. bank(signal, samples, view) returns a signal of the teacher for any samples [M] of the
            training set, float32 [M, ...] on the samples' device, from the cache: an exact memory bank. class_means()
            returns the teacher's mean embedding per class, float32 [K, D] on the CPU. Both are None as long as there is
            no cache, when an objective is only checked: call them in `prepare`. moments(signal) returns mean and
            covariance of one of the teacher's signals over all that is cached; None without a cache. nearest(count,
            same) returns the nearest samples of each in the teacher's embedding, of the same class or of others, int64
            [N, count or N - 1] on the CPU, -1 where there are fewer; as `bank` it is None without a cache.
        views_per_step: how many views of each sample a batch has, in adjacent rows (`train.views_per_step`).
        mixing: the view operation that mixes each sample with another; None if none does.
    """

    num_samples: int
    classes: int
    labels: Tensor | None = None
    seed: int = 0
    bank: Callable[[str, Tensor, int], Tensor] | None = None
    class_means: Callable[[], Tensor] | None = None
    views_per_step: int = 1
    mixing: str | None = None
    moments: Callable[[str], Moments] | None = None
    nearest: Callable[[int, bool], Tensor] | None = None


@dataclass(frozen=True)
class Needs:
    """Names the signals that an objective reads.

    Args:
        teacher, student: `logits`, `embedding`, `head`, `features/block3`, `extras/channel-gram/block3`.
        labels: it needs a label for every sample, and one alone: it is refused where views mix two.
        views: how many views of each sample, or more, in adjacent rows.
        neighbours: that samples come with neighbours in a batch; None where that does not matter.
    """

    teacher: frozenset[str] = frozenset()
    student: frozenset[str] = frozenset({"logits"})
    labels: bool = False
    views: int = 1
    neighbours: Neighbours | None = None


class Objective(nn.Module, ABC):
    """Compares the signals of student and teacher for a batch: a distillation method.

    It never sees a network, an optimiser, a device or a path. Projectors and banks are its submodules and
    buffers; they are trained and saved with the student.
    """

    needs: Needs
    notes: tuple[str, ...] = ()
    """What a user is to know of its options: what it leaves out for these networks, or where it may fail."""

    def prepare(self, batch: Batch, progress: float) -> None:
        """Do on the host what the next `forward` needs of it: draw random numbers, read the bank, look at the batch.

        Args:
            batch, progress: as for `forward`.

        `forward` then has tensors of fixed shapes, asks a device for no value, and is one graph to `torch.compile`.
        Training calls this before the student's own forward: `batch.on_cpu()` then waits for nothing.
        """

    def is_prepared(self) -> bool:
        """Return whether `prepare` does something, so that a step cannot be recorded (`train.capture`)."""
        return type(self).prepare is not Objective.prepare

    @abstractmethod
    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute named scalar terms, each a mean over the batch; their sum is the objective's value.

        Args:
            student, teacher: signals of the batch; the teacher's are constants without gradient.
            batch: labels and numbers.
            progress: the fraction of training that is done, in [0, 1].
        """

    def kept(self) -> KeptPart | None:
        """Return what the student keeps of it at inference; None for nothing.

        That is a projection with a classifier behind it, the teacher's or one that is learned with it, in place of the
        student's own classifier. Both are scored and exported with the student.
        """
        return None

    def __call__(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`prepare`, and `forward` with the teacher's signals as constants: no gradient goes into a teacher."""
        self.prepare(batch, progress)
        return self.compare(student, teacher, batch, progress)

    def compare(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Call this where `prepare` was called with the batch.

        Args:
            student, teacher, batch, progress: as for `forward`, and so is what is returned.
        """
        terms: dict[str, Tensor] = super().__call__(student, teacher.detached(), batch, progress)
        return terms


@dataclass(frozen=True)
class BlockPair:
    """Names a student's block and the teacher's block that it learns from.

    Args:
        student_shape, teacher_shape: (C, H, W).
    """

    student: str
    teacher: str
    student_shape: tuple[int, int, int]
    teacher_shape: tuple[int, int, int]


def pair_blocks(
    student: SignalShapes, teacher: SignalShapes, blocks: tuple[str, ...] | None, key: str
) -> list[BlockPair]:
    """Pair the blocks of two networks from the deepest backwards: the last of both, those before them, and so on.

    Args:
        student: the shapes of its signals.

    `blocks` are the teacher's blocks to use, None for all that are cached and have a partner. A block that is not
    cached counts none the less. Raises ConfigError at `key` if a block is not cached or has no partner.
    """
    cached = sorted(filter(block_number, teacher.features), key=block_number)
    if not cached:
        fix = "add `features: {}` to `signals` and cache the teacher again"
        raise ConfigError([Problem(key, "needs cached features of the teacher, and there are none", fix=fix)])
    unknown = [name for name in blocks or () if name not in cached]
    if unknown:
        raise ConfigError([unknown_name(f"{key}.blocks", name, cached) for name in unknown])
    wanted = [name for name in cached if blocks is None or name in blocks]
    own = partners(student, teacher, wanted)
    pairs = [BlockPair(s, t, student.features[s], teacher.features[t]) for t, s in own.items()]
    alone = [name for name in wanted if name not in own]
    if alone and (blocks is not None or not pairs):
        what = f"the student has {student.depth} blocks, too few for the teacher's {', '.join(alone)}"
        fix = "leave the shallow blocks out" if pairs else "cache deeper ones: `signals.features.blocks`"
        raise ConfigError([Problem(f"{key}.blocks", what, got=f"{teacher.depth} of the teacher's", fix=fix)])
    return pairs


def partners(student: SignalShapes, teacher: SignalShapes, blocks: Iterable[str]) -> dict[str, str]:
    """Return the student's block for each of the teacher's `blocks`: as deep, counted from the last of both networks.

    Blocks for which the student has none are left out.
    """
    shallower = student.depth - teacher.depth
    found = {block: f"block{block_number(block) + shallower}" for block in blocks}
    return {block: own for block, own in found.items() if own in student.features}


def pair_last_blocks(student: SignalShapes, teacher: SignalShapes, key: str) -> BlockPair:
    """Pair the last blocks of both networks: a linear head reads the mean of their maps.

    Args:
        student, teacher: shapes.

    Raises ConfigError at `key` if that of the teacher is not cached, whatever other blocks are.
    """
    last = f"block{teacher.depth}"
    if teacher.features and last not in teacher.features:
        fix, got = f"add {last} to `signals.features.blocks` and cache the teacher again", ", ".join(teacher.features)
        raise ConfigError([Problem(key, "needs the map of the teacher's last block", expected=last, got=got, fix=fix)])
    return pair_blocks(student, teacher, None, key)[-1]


def build_objective(
    name: str,
    options: Mapping[str, Any],
    student: SignalShapes,
    teacher: SignalShapes,
    context: Context,
    key: str | None = None,
) -> Objective:
    """Build the objective in the file `name`, for two networks.

    Args:
        student, teacher: shapes of their signals.
        context: of the run.
        options: bound strictly; every problem at once.
        key: the dotted key that errors name (default: `name`).

    Raises ConfigError for unknown names and options, and for signals that the teacher cache does not hold.
    """
    key = key or name
    method = plugins.choose_at(key, METHODS, {**options, "name": name})
    objective: Objective = method.module.build(method.options, student, teacher, context, key)
    if any(signal.startswith("features/") for signal in objective.needs.teacher | objective.needs.student):
        for low_pass in {"mean", teacher.filter}:
            find_filter(low_pass)  # here, so that no step looks for one
    problems = missing_signals(objective.needs, teacher, context, key)
    if "logits" in objective.needs.student and not student.logits:
        problems.append(Problem(key, "needs the student's logits, and it has no classes", fix=NO_LOGITS_HINT))
    if problems:
        raise ConfigError(problems)
    return objective


def missing_signals(needs: Needs, teacher: SignalShapes, context: Context, key: str) -> list[Problem]:
    """Return the problems with what an objective needs and teacher, labels or batches do not provide.

    Args:
        teacher: shapes of its signals.
        context: of the run.
        key: the dotted key that problems name.
    """
    held = {
        *(["logits"] if teacher.logits else []),
        *(["head"] if teacher.linear is not None else []),
        *(f"features/{block}" for block in teacher.features),
        *(f"extras/{name}" for name in teacher.extras),
    }
    if teacher.embedding is not None:
        held.add("embedding")
    missing, problems = needs.teacher - held, list[Problem]()
    if not teacher.classes and (absent := sorted(missing & {"head", "logits"})):
        what = f"needs the teacher's {' and '.join(map(repr, absent))}, and it has no classifier"
        problems.append(Problem(key, what, fix=NO_CLASSES_HINT))
        missing -= {"head", "logits"}
    got = ", ".join(sorted(held)) or "nothing"
    for signal in sorted(missing):
        what = f"needs the teacher's {signal!r}, which the cache does not hold"
        problems.append(Problem(key, what, signal, got, NO_HEAD_HINT if signal == "head" else CACHE_IT_HINT))
    unlabeled = context.labels is None or bool((torch.as_tensor(context.labels) < 0).any())
    if needs.labels and unlabeled:
        problems.append(Problem(key, "needs a label for every sample, and some have none"))
    problems += mixed_labels(context, key) if needs.labels else []
    if needs.views > context.views_per_step:
        what = f"needs {needs.views} views of every sample in a batch"
        fix = f"set `train.views_per_step: {needs.views}` (in Python, views={needs.views})"
        problems.append(Problem(key, what, str(needs.views), str(context.views_per_step), fix))
    return problems


def mixed_labels(context: Context, key: str) -> list[Problem]:
    """Return the problem of views that mix two samples, for an objective that reads one label of each.

    Args:
        context: of the run.
        key: the dotted key that problems name.
    """
    if context.mixing is None:
        return []
    what = f"cannot say what a view is that {context.mixing} makes of two samples: it needs one label for each view"
    fix = f"take {context.mixing} out of `views.operations`, or an objective that takes no labels, or mixes them"
    return [Problem(key, what, fix=f"{fix}, such as kd and hard-label")]


@dataclass(frozen=True)
class Terms:
    """Holds the value of an objective set: the weighted total to minimise, and every term unweighted."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
