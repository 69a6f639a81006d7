"""Opens a student's run: its settings, its network and objectives, and the views and signals that it learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from pipeline.config import problems_of
from pipeline.data import Samples
from pipeline.errors import ConfigError
from pipeline.experiment.caches import open_teacher_outputs
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.networks import build, expected_by_teacher, recorded_preprocessing, shapes_of
from pipeline.experiment.objective_set import ObjectiveBuilder, OtherTeacher
from pipeline.experiment.reference import open_reference
from pipeline.experiment.runs import RunName
from pipeline.experiment.scoring import Scorer
from pipeline.experiment.section_sets import LearningSections
from pipeline.experiment.sections import StudentConfig, StudentsSection, caches_read
from pipeline.models import Network
from pipeline.models.device import choose_device, choose_precision
from pipeline.objectives import ObjectiveSet, ObjectiveSetConfig, ObjectivesSection
from pipeline.objectives.neighbours import few_groups
from pipeline.progress import Lines, Progress
from pipeline.signals import LinearHead
from pipeline.store.backend import backend_of
from pipeline.store.format.manifest import Manifest
from pipeline.training import (
    FromCaches,
    Memory,
    Steps,
    TrainConfig,
    Verify,
    build_optimizer,
    build_scheduler,
    check_views,
)
from pipeline.training.config import TrainSection
from pipeline.training.gpu_settings import refuse_prepared, refuse_without_gpu
from pipeline.training.neighbourhood import Neighbourhood
from pipeline.training.world import World
from pipeline.views import Views


class StudentSections(LearningSections, StudentsSection, ObjectivesSection, TrainSection):
    """Declares what decides how students are trained, and from what."""


def training_of(train: TrainConfig, student: StudentConfig, name: str) -> TrainConfig:
    """Return the section `train` with a student's own keys.

    Args:
        train: the section.
        student: the student's section.
        name: of the student.

    Raises ConfigError at `students.<name>.train`.
    """
    try:
        return TrainConfig.model_validate({**train.model_dump(), **student.train})
    except ValidationError as error:
        key = f"students.{name}.train"
        raise ConfigError([replace(p, key=f"{key}.{p.key}") for p in problems_of(error)]) from None


@dataclass(frozen=True)
class StudentRun:
    """Opens what one student with one objective set and one seed is trained with, each part when it is first needed.

    Args:
        experiment: its configuration and data.
        name: of the run.
        exact: whether caches are compared with all pixels and with the teacher's weights, where they are; else ids and
            names are trusted.
        teacher_training: the section, as plain values; None if the teacher is not trained here.
    """

    experiment: Experiment[StudentSections]
    name: RunName
    exact: bool = True
    teacher_training: Mapping[str, Any] | None = None

    @cached_property
    def training(self) -> TrainConfig:
        """Return the settings of the training. Raises ConfigError for wrong keys in the student's `train`."""
        config = self.experiment.config
        training = training_of(config.train, config.students[self.name.student], self.name.student)
        # Resolved now: a run that goes on elsewhere goes on in the same precision.
        precision = choose_precision(training.precision, choose_device(training.device))
        return training.model_copy(update={"precision": precision})

    @property
    def objectives_config(self) -> ObjectiveSetConfig:
        """Return the entry of the objective set in the section `objectives`."""
        return self.experiment.config.objectives[self.name.objectives]

    @cached_property
    def caches(self) -> FromCaches | None:
        """Return the cached outputs of the teacher, all signals of them; None if views are fresh.

        Raises the errors of `open_teacher_outputs`.
        """
        if self.objectives_config.fresh:
            return None
        return open_teacher_outputs(self.experiment, self.training.views_per_step, exact=self.exact)

    @cached_property
    def config(self) -> StudentConfig:
        """Return the student's section, with the preprocessing that it takes from its weights or from the teacher."""
        teacher = self.experiment.config.teacher
        if self.caches is not None:
            used = recorded_preprocessing(self.caches.primary.manifest.identity.teacher)
        else:
            used = expected_by_teacher(teacher, self.teacher_training)
        return self.experiment.config.students[self.name.student].taught_by(teacher, used)

    @cached_property
    def network(self) -> Network:
        """Return the student's network with the weights that it starts with. Raises ModelError."""
        return build(self.config, self.experiment.data.classes, seed=self.name.seed)

    @cached_property
    def objective_set(self) -> ObjectiveSet:
        """Return the objectives, bound to the network, which from now on keeps the maps that they read of it.

        Raises ConfigError if an objective cannot be built.
        """
        student, caches, data = shapes_of(self.network), self.caches, self.experiment.data
        labels, classes = data.training.labels, data.classes
        known = labels, classes, Lines(), self.training.device
        memory = Memory(caches, *known) if caches else None
        teacher, views = caches.shapes if caches else student, self.training.views_per_step
        named = caches.others.items() if caches else ()
        others = {name: OtherTeacher(each.shapes, Memory(each, *known)) for name, each in named}
        own = caches.own if caches else None
        builder = ObjectiveBuilder(student, teacher, data, self.name.seed, memory, views, own, others)
        built = builder.build(self.name.objectives, self.objectives_config)
        read = [name for name in built.needs.student if name.startswith("features/")]
        self.network.keep_taps([name.removeprefix("features/") for name in read])
        return built

    @property
    def notes(self) -> list[str]:
        """Return what is to be said of the objectives before training."""
        chosen, training = self.objective_set, self.training
        return [*chosen.notes, *few_groups(chosen.needs.neighbours, training.batch_size // training.views_per_step)]

    @cached_property
    def signals_read(self) -> FromCaches | None:
        """Return the cached outputs with those signals alone that the objectives read; None if views are fresh."""
        chosen = self.objective_set
        others = {name: signals - {"head"} for name, signals in chosen.needs_of_others.items()}
        return self.caches.reading(chosen.needs.teacher - {"head"}, others) if self.caches else None

    @cached_property
    def steps(self) -> Steps:
        """Return the batches of the run, in order."""
        data, caches, training = self.experiment.data, self.signals_read, self.training
        if caches is None:
            return Steps.fresh(data.training, data.views, training, self.name.seed)
        rows, wanted, device = caches.primary.rows_per_block, self.objective_set.needs.neighbours, training.device
        near = Neighbourhood(caches, wanted, choose_device(device), Lines()) if wanted else None
        return Steps(data.training, data.views, caches, caches.views, training, self.name.seed, rows, near)

    @property
    def head(self) -> LinearHead | None:
        """Return the teacher's head, if an objective reads it."""
        caches = self.signals_read
        return caches.primary.head if caches and "head" in self.objective_set.needs.teacher else None

    @property
    def other_heads(self) -> dict[str, LinearHead]:
        """Return the heads that objectives read of teachers that they name."""
        caches, found = self.signals_read, dict[str, LinearHead]()
        for name, signals in self.objective_set.needs_of_others.items() if caches else ():
            head = caches.others[name].primary.head if caches and "head" in signals else None
            found |= {name: head} if head else {}
        return found

    @cached_property
    def scorer(self) -> Scorer | None:
        """Return what scores the student on the holdout, beside the teacher if it is cached; None without a holdout.

        A student without a classifier is scored by its teacher: None if that is not cached. Raises CacheMismatch if the
        cache of the holdout is of something else.
        """
        scorer = Scorer.of(self.experiment.data, self.experiment.config.evaluate, self.training)
        if scorer is None or self.caches is None:  # a fresh run must be the same on a machine with caches and without
            return scorer if scorer and scorer.labels is not None else None
        reference = open_reference(self.experiment, "holdout", exact=self.exact)
        scorer = scorer.compared_with(reference.signals) if reference else scorer
        headless = not self.network.num_classes and self.objective_set.kept() is None
        return scorer.headless() if headless or scorer.labels is None else scorer

    def require_trainable(self, world: World) -> None:
        """Open all parts, print what is to be noted of them, and refuse what so many processes cannot train.

        Args:
            world: what the processes that train together do.

        Raises ConfigError, and the errors of the parts.
        """
        training = self.training
        world.device(choose_device(training.device))  # before any work, if there are too few
        data, network = self.experiment.data, self.network
        if network.kept is not None:
            print(f"starts with {self.config.start}: {network.kept}")
        chosen, steps = self.objective_set, self.steps
        for note in self.notes:
            print(f"note: {note}")
        build_scheduler(build_optimizer(network.model, chosen, training), training, 1)  # refused now, if unknown
        training.refuse_without("train", labels=data.training.labels is not None, holdout=self.scorer is not None)
        refuse_without_gpu(training)
        if training.capture:
            refuse_prepared(chosen)
        world.refuse(training, steps.samples.count)
        world.refuse_network(network)

    def identity(self) -> dict[str, Any]:
        """Return all that decides the trained student, as plain values."""
        training, scorer, chosen = self.training, self.scorer, self.objectives_config
        return {
            "artifact": "student",
            "answers": self._learnt_identity(),
            "labels": self.experiment.data.training.labels_digest(),
            "student": self.config.for_identity("train", "weights"),
            "start": self.network.weights_digest(),
            "train": training.identity(),
            "scored": [operation.model_dump(mode="json") for operation in self.experiment.config.evaluate.operations],
            "objectives": [entry.model_dump(mode="json") for entry in chosen.objectives],
            "seed": self.name.seed,
            **({"teacher_dropping": chosen.teacher_dropping} if chosen.teacher_dropping else {}),
            **({"holdout": scorer.identity()} if scorer and training.patience is not None else {}),
        }

    def conditions(self) -> dict[str, Any]:
        """Return what decides students of any constants of this objective set, and their scores, as plain values.

        Students whose conditions are equal differ by their constants alone. Nothing is bound to these: they may be
        such as an objective refuses.
        """
        config, data, training = self.experiment.config, self.experiment.data, self.training
        scorer, held = Scorer.of(data, config.evaluate, training), data.holdout
        by_teacher = scorer is not None and (scorer.labels is None or not self.network.num_classes)
        references = caches_read(config.data, config.store, config.caches).get("holdout", []) if by_teacher else []
        return {
            "answers": self.caches.identity() if self.caches is not None else _fresh(data.training, data.views),
            "labels": data.training.labels_digest(),
            "student": self.config.for_identity("train", "weights"),
            "start": self.network.weights_digest(),
            "train": training.identity(),
            "scored": [operation.model_dump(mode="json") for operation in config.evaluate.operations],
            "holdout": {**scorer.identity(), "ids": held.ids_digest()} if scorer and held else None,
            "compared_with": [Manifest.read(path).fingerprint for path in references if backend_of(path).exists()],
        }

    def _learnt_identity(self) -> dict[str, Any]:
        """Return what decides the pixels and the signals that the student learns from."""
        if self.signals_read is not None:
            return self.signals_read.identity()
        return _fresh(self.steps.samples, self.steps.views)

    def check_views(self, verify: Verify, progress: Progress, compared: dict[str, str] | None = None) -> str:
        """Compare views with those that the teacher saw, and return a sentence that says what was checked.

        Args:
            verify: how many views are compared.
            progress: shows how far the work is.
            compared: what was compared for students before; what is compared now is added.

        Raises CacheMismatch for a view with other pixels. Fresh views are not compared.
        """
        if self.signals_read is None:
            return "views are drawn anew in every epoch: the teacher has no part in this student"
        return check_views(self.steps, self.signals_read, verify, progress, compared)


def _fresh(samples: Samples, views: Views) -> dict[str, Any]:
    """Return what decides the pixels of views that are drawn anew in every epoch."""
    return {"views": "fresh", "drawn": views.identity(), "pixels": samples.pixel_digest()}
