"""Lift: the student's last map is lifted to the teacher's width, and what lifts it is kept at inference.

Tian, Xu and Li, "From Per-Image Low-Rank to Encoding Mismatch: Rethinking Feature Distillation in Vision Transformers",
ICML 2026, arXiv 2511.15572, after the authors' code. A narrow student cannot say what a wide teacher says, though each
image's features are of low rank: other images use other directions. So the student keeps the wide end. Each place i of
its last map is mapped linearly to the teacher's width D and normalised over channels; the classifier reads the mean:

    g_i(b) = LayerNorm(A F_s(b)_i),   z(b) = W mean_i g_i(b) + a
    L = λ · mean over b, c, i of (g_i(b) - F_t(b)_i)² + cross-entropy(z, y) + μ T² KL(softmax(z_t / T) ‖ softmax(z / T))

λ = 0.2 and no KD (μ = 0) is the authors' recipe for maps alone: 76.61 for CaiT-S24 to DeiT-Tiny, ImageNet; 77.53 with
KD, and a loss of spectra in place of squares, where KD has 74.86. A, its norm, W and a are learned with the student,
kept in its folder (`head.safetensors`, `pipeline.models.reused`), scored and exported. The network's own classifier is
neither trained nor scored. So this objective alone is the set: hard labels and KD beside it would teach that one.

`classifier: teacher` has the teacher's W and a, as `simkd` has, whose projection is deeper, and reads no label: take
`feature_weight: 1` there, since nothing but the map teaches. With
`target: embedding`, g's mean is compared with the teacher's embedding, which is what its classifier reads.

Approximate offline: g is low-passed to the grid of the cached maps before both are compared. Exact where that grid is
the map's own, and with `target: embedding`. The paper's other remedy, WideLast, is a network whose last block is wider,
not a loss: build it (`students.*.model`), and use `fitnet` and `kd`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.models.reused import LiftProjector
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.layers import squared_errors
from pipeline.objectives.maps import comparable_last_maps, on_one_grid
from pipeline.objectives.methods.hard_label import cross_entropy
from pipeline.objectives.requirements import deepest_map, refuse_idle, teacher_embedding
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("features", "labels")


class Options(Section):
    """feature_weight: λ. kd_weight: μ. temperature: T > 0 of KD. target: what the lifted map is compared with.

    classifier: behind the lifted map, `learned` from labels, or the `teacher`'s.
    """

    feature_weight: float = Field(0.2, ge=0)
    kd_weight: float = Field(0.0, ge=0)
    temperature: float = Field(1.0, gt=0)
    target: Literal["map", "embedding"] = "map"
    classifier: Literal["learned", "teacher"] = "learned"

    @model_validator(mode="after")
    def _read(self) -> Self:
        if not self.kd_weight:
            refuse_idle(self, "kd_weight 0", ("temperature",))
        return self


class Lift(SampleObjective):
    """The squared error of the lifted map, and what its classifier learns. channels: C and D."""

    def __init__(
        self, blocks: tuple[str, str | None], channels: tuple[int, int], classes: int, options: Options, low_pass: str
    ) -> None:
        super().__init__()
        (self.block, self.target), self.options, self.low_pass = blocks, options, low_pass
        self.learned = options.classifier == "learned"
        self.projector = LiftProjector(self.block, *channels, classes if self.learned else None)
        read = {f"features/{self.target}" if self.target else "embedding"}
        read |= set() if self.learned else {"head"}
        read |= {"logits"} if options.kd_weight else set()
        self.needs = Needs(frozenset(read), frozenset({f"features/{self.block}"}), labels=self.learned)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Term `feature`, weighted; `cross-entropy`, if the classifier is learned; `kd`, weighted, if there is any."""
        lifted = self.projector(student.features[self.block])
        pooled = lifted.mean((2, 3))
        if self.target:
            errors = squared_errors(*on_one_grid(lifted, teacher.features[self.target], self.low_pass))
        else:
            assert teacher.embedding is not None
            errors = squared_errors(pooled, teacher.embedding)
        terms, weight = {"feature": self.options.feature_weight * errors}, self.options.kd_weight
        if self.learned or weight:
            head = self.projector.own or teacher.head
            assert head is not None
            logits = head(pooled)
            terms |= {"cross-entropy": cross_entropy(logits, batch.labels)} if self.learned else {}
            terms |= {"kd": weight * kl_divergence(logits, teacher.logits, self.options.temperature)} if weight else {}
        return terms

    def kept(self) -> LiftProjector:
        """What lifts, with its classifier if that is learned."""
        return self.projector


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses students without maps, teachers without what is compared, other classes, maps of other proportions."""
    block, (channels, _, _) = deepest_map(student, key)
    learned, problems = options.classifier == "learned", list[Problem]()
    if learned and not context.classes:
        what = "learns a classifier from labels, and the data set has no classes"
        problems.append(Problem(f"{key}.classifier", what, fix="use `classifier: teacher`"))
    if learned and options.kd_weight and teacher.classes != context.classes:
        what, fix = "needs a teacher that knows the classes of the data", "leave `kd_weight` out"
        problems.append(Problem(f"{key}.kd_weight", what, str(context.classes), str(teacher.classes), fix))
    if problems:
        raise ConfigError(problems)
    if options.target == "embedding":
        sizes = channels, teacher_embedding(teacher, key)
        return Lift((block, None), sizes, context.classes, options, teacher.filter)
    pair = comparable_last_maps(student, teacher, key, behind_head=not learned)
    sizes = pair.student_shape[0], pair.teacher_shape[0]
    return Lift((pair.student, pair.teacher), sizes, context.classes, options, teacher.filter)
