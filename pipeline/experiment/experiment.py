"""Opens an experiment: the sections that a command declares, and what they name, each when it is first needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from pipeline.config import Section
from pipeline.data import DataSection, PackedDataset, Samples, select
from pipeline.errors import ConfigError, Problem
from pipeline.experiment.data import Data, evaluated_split, one_view
from pipeline.experiment.networks import build_teacher, classes_without_building, identity_without_building
from pipeline.experiment.section_sets import CacheSections, SampleSections, TaughtSections
from pipeline.experiment.sections import EvaluateConfig, caches_written
from pipeline.models import Network, TeacherConfig, load_weights
from pipeline.models.kinds import name_in_identity
from pipeline.models.text_head import TextEmbeddings
from pipeline.models.weights import digest_of
from pipeline.signals import EmbeddingConfig, LogitsConfig, SignalsConfig
from pipeline.store.format.identity import CacheIdentity
from pipeline.store.format.requirements import CacheRequirement, RequiredSamples, RequiredSignals, RequiredTeacher
from pipeline.store.format.sections import DataIdentity, TeacherIdentity, ViewsIdentity
from pipeline.store.location import StorePath
from pipeline.views import Views

if TYPE_CHECKING:
    from pipeline.experiment.runs import RunName
    from pipeline.experiment.students import StudentRun, StudentSections

EVALUATION_SIGNALS = SignalsConfig(logits=LogitsConfig(encoding="float32"), embedding=None, features=None)
"""The signals of evaluation caches: exact logits, for agreement and KL."""

HEADLESS_EVALUATION_SIGNALS = SignalsConfig(logits=None, embedding=EmbeddingConfig(encoding="float32"), features=None)
"""The signals of evaluation caches of a teacher without a classifier: the exact embedding, the deepest there is."""

EvaluationCache = Literal["holdout", "evaluation"]
"""The caches for evaluation, of the deepest signal alone: of the holdout, and of the split that is reported."""

NOTHING_HELD_OUT = Problem("data.holdout", "nothing is held out, so there is no cache of it")


class CacheContents(NamedTuple):
    """Holds what a cache is made of: the samples and views that the teacher sees, and the signals that are kept."""

    samples: Samples
    views: Views
    signals: SignalsConfig

    @classmethod
    def for_evaluation(cls, samples: Samples, evaluate: EvaluateConfig, teacher: TeacherConfig) -> CacheContents:
        """Return what a cache for evaluation holds: the deepest signal of the one view that evaluation sees.

        Args:
            samples: of the holdout, or of the split that is reported.
            evaluate, teacher: the sections.
        """
        signals = HEADLESS_EVALUATION_SIGNALS if without_head(teacher) else EVALUATION_SIGNALS
        return cls(samples, one_view(samples, evaluate.operations), signals)

    def required(
        self, teacher: TeacherIdentity | RequiredTeacher, unchecked: tuple[str, ...] = (), *, exact: bool
    ) -> CacheRequirement:
        """Return what a cache must be, to be of these samples, views and signals.

        Args:
            teacher: what it must be of.
            unchecked: dotted fields that are not compared.
            exact: whether it must have the digest of the pixels, which are all read for that; else the number and the
                ids of samples suffice.
        """
        return CacheRequirement(
            data=DataIdentity.of(self.samples) if exact else RequiredSamples.of(self.samples),
            views=ViewsIdentity.of(self.views),
            numbers=self.views.numbers,
            teacher=teacher,
            signals=RequiredSignals.of(self.signals),
            unchecked=unchecked,
        )


SectionsT_co = TypeVar("SectionsT_co", bound=Section, covariant=True)


class Experiment(Generic[SectionsT_co]):
    """Opens what the configuration of an experiment names: data, teacher, caches and students, when first needed.

    A command declares the sections that it reads. mypy finds the use of an attribute that needs another section.

    Args:
        config: the sections.
        data: the packed data set, if it is open already; None opens it.
    """

    def __init__(self, config: SectionsT_co, data: Data | None = None) -> None:
        self.config = config
        self._data = data
        self._dataset = data.dataset if data is not None else None
        self._teacher: Network | None = None
        self._identity: TeacherIdentity | None = None
        self._digest: str | None = None
        self._evaluation_caches: dict[EvaluationCache, CacheContents] = {}

    @property
    def dataset(self: Experiment[DataSection]) -> PackedDataset:
        """Return the packed data set. Raises DataError if the file does not fit the configuration."""
        if self._dataset is None:
            self._dataset = PackedDataset.of(self.config.data)
        return self._dataset

    @property
    def classes(self: Experiment[DataSection]) -> int:
        """Return the number of classes K; 0 if the data set has neither labels nor class names."""
        return len(self.dataset.class_names)

    @property
    def holdout(self: Experiment[DataSection]) -> Samples | None:
        """Return the samples that are held out of training and caching; None if none are."""
        return self._data.holdout if self._data is not None else select(self.dataset, self.config.data)[1]

    @property
    def data(self: Experiment[SampleSections]) -> Data:
        """Return the samples that are used, and their views.

        Raises DataError, or ConfigError for views of several sizes.
        """
        if self._data is None:
            self._data = Data.open(self.config.data, self.config.views)
            self._dataset = self._data.dataset
        return self._data

    @property
    def teacher(self: Experiment[TaughtSections]) -> Network:
        """Return the teacher with its weights; it is built on the CPU. Raises ModelError."""
        if self._teacher is None:
            self._teacher = build_teacher(self.config.teacher, self.dataset.class_names)
        return self._teacher

    @property
    def paths(self: Experiment[TaughtSections]) -> dict[str, StorePath]:
        """Return the paths of the caches that `cache-teacher` writes, by what they are for."""
        return caches_written(self.config.data, self.config.store)

    @property
    def caches(self: Experiment[CacheSections]) -> dict[str, CacheContents]:
        """Return what the caches hold that `cache-teacher` writes, by what they are for. Opens the data."""
        data, evaluate = self.data, self.config.evaluate
        teacher = self.config.teacher
        caches = {"training": CacheContents(data.training, data.views, kept_signals(self.config.signals, teacher))}
        scored = {"holdout": data.holdout, "evaluation": Samples(evaluated_split(data.dataset, evaluate))}
        held = {name: samples for name, samples in scored.items() if samples is not None}
        return caches | {name: CacheContents.for_evaluation(each, evaluate, teacher) for name, each in held.items()}

    def evaluation_cache(self: Experiment[TaughtSections], what: EvaluationCache) -> CacheContents:
        """Return what a cache for evaluation holds.

        Args:
            what: which of them.

        Raises ConfigError if there is no holdout, or no such split to report.
        """
        if what not in self._evaluation_caches:
            evaluate = self.config.evaluate
            samples = self.holdout if what == "holdout" else Samples(evaluated_split(self.dataset, evaluate))
            if samples is None:
                raise ConfigError([NOTHING_HELD_OUT])
            self._evaluation_caches[what] = CacheContents.for_evaluation(samples, evaluate, self.config.teacher)
        return self._evaluation_caches[what]

    def student(
        self: Experiment[StudentSections],
        name: RunName,
        *,
        exact: bool = True,
        teacher_training: Mapping[str, Any] | None = None,
    ) -> StudentRun:
        """Return what a student is trained with.

        Args:
            name: of its run.
            exact, teacher_training: as of `StudentRun`.
        """
        from pipeline.experiment.students import StudentRun  # now: caches are made without the code of training

        return StudentRun(self, name, exact, teacher_training)

    def required(
        self: Experiment[TaughtSections], held: CacheContents, found: CacheIdentity | None, *, exact: bool
    ) -> CacheRequirement:
        """Return what a cache must be that holds the signals of this experiment's teacher.

        Args:
            held: its samples, views and signals.
            found: the identity of the cache at hand; None if it cannot be read. Where the file of weights has the
                digest that it records, no network is built to compute that.
            exact: read all pixels and weights; else trust ids and names.
        """
        config = self.config.teacher
        if exact and config.weights_are_here:
            return held.required(self._identified(found), exact=True)
        left_out = ("device", "weights", "head", "text_head")
        named = {key: value for key, value in config.for_identity(*left_out).items() if value is not None}
        named |= {"interpolation": config.interpolation} if config.interpolation else {}
        named["model"] = name_in_identity(config.model)
        named |= {"num_classes": 0} if without_head(config) else {}
        if config.text_head is not None and config.text_head.exists():
            named["text_head"] = TextEmbeddings.read(config.text_head).digest()
        unchecked = ("teacher.weights",) if exact else ("teacher.weights", "data.pixels")
        if config.classes is not None and (chosen := classes_without_building(config)) is not None:
            named["classes"] = chosen
        elif config.classes is not None:
            del named["classes"]
            unchecked = (*unchecked, "teacher.classes")
        return held.required(RequiredTeacher.model_validate(named), unchecked, exact=exact)

    def _identified(self: Experiment[TaughtSections], found: CacheIdentity | None) -> TeacherIdentity:
        """Return the teacher's identity, with the digest of its weights."""
        if self._identity is None and found is not None:
            self._identity = self._as_found(found.teacher)
        if self._identity is None:
            config = self.config.teacher
            network = self._teacher or build_teacher(config, self.dataset.class_names)
            self._identity = TeacherIdentity.of(network, precision=config.precision, micro_batch=config.micro_batch)
        return self._identity

    def _as_found(self: Experiment[TaughtSections], found: TeacherIdentity) -> TeacherIdentity | None:
        """Return the teacher's identity if its file of weights is, tensor by tensor, that of a cache; else None.

        A file of other names or types becomes those of the network only when that is built.
        """
        config = self.config.teacher
        named = config.model, dict(config.options), config.classes_of(self.classes)
        if config.pooling or config.text_head:
            return None
        if not isinstance(config.weights, Path) or named != (found.model, found.options, found.num_classes):
            return None
        known = identity_without_building(config, self.classes)
        if known is None:
            return None
        if self._digest is None:
            self._digest = digest_of(load_weights(config.weights))
        if self._digest != found.weights:
            return None
        arithmetic = {"precision": config.precision, "micro_batch": config.micro_batch}
        return TeacherIdentity.model_validate({**known, "weights": self._digest, **arithmetic})


def without_head(teacher: TeacherConfig) -> bool:
    """Tell whether a teacher has neither a classifier nor a head of texts.

    Args:
        teacher: its section.
    """
    return teacher.head == "none" and teacher.text_head is None


def kept_signals(config: SignalsConfig, teacher: TeacherConfig) -> SignalsConfig:
    """Return the section `signals` without the logits if the teacher has no classifier.

    Args:
        config: the section.

    Raises ConfigError if it keeps nothing else.
    """
    if not without_head(teacher) or config.logits is None:
        return config
    if config.embedding is None and config.features is None and not config.extras:
        fix = "keep its embedding, or maps: `signals: {embedding: {}, features: {}}`"
        raise ConfigError([Problem("signals", "keeps nothing of a teacher that has no logits", fix=fix)])
    return config.model_copy(update={"logits": None})
