"""train-teacher: trains the teacher on labels, for those who have none."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Section
from pipeline.data import DataConfig
from pipeline.errors import ConfigError, DataError, Problem
from pipeline.models import TeacherConfig
from pipeline.objectives import ObjectiveEntry, ObjectiveSetConfig
from pipeline.progress import Lines
from pipeline.signals import SignalShapes
from pipeline.store import Scratch, fingerprint
from pipeline.training import Steps, TrainConfig, train
from pipeline.views import ViewsConfig
from stages.inputs import Source
from stages.learning import write_run
from stages.networks import build
from stages.objective_set import objective_set
from stages.parts import Data, EvaluateConfig
from stages.scoring import Scorer


class Inputs(Section):
    """What this stage reads."""

    data: DataConfig
    teacher: TeacherConfig
    teacher_training: TrainConfig | None = None
    views: ViewsConfig = ViewsConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


def run(source: Source, *, replace: bool, wait: bool) -> None:
    """Train `teacher` by `teacher_training` and publish the folder of `teacher.weights`."""
    inputs = source.read(Inputs)
    weights, training, seed = inputs.teacher.weights, inputs.teacher_training, 0
    if training is None:
        print("no section teacher_training: the configuration brings its teacher, nothing is trained")
        return
    if not isinstance(weights, Path):
        expected = "a file in a folder of its own, such as artifacts/teacher/teacher.safetensors"
        raise ConfigError([Problem("teacher.weights", "names no file to write", expected, repr(weights))])
    data = Data.open(inputs.data, inputs.views)
    if data.training.labels is None:
        raise DataError("a teacher cannot be trained without labels", where=inputs.data.path, got=inputs.data.split)
    plain = inputs.teacher.model_copy(update={"weights": None})
    identity = {
        "artifact": "teacher",
        "data": {"pixels": data.training.pixel_digest(), "labels": data.training.labels_digest()},
        "network": plain.said("device", "micro_batch", "precision"),
        "classes": data.classes,
        "training": training.identity(),
        "views": data.views.identity(),
        "seed": seed,
    }
    with Scratch(weights.parent, fingerprint(identity), wait=wait) as scratch:
        if scratch.done:
            print(f"{weights.parent}: already there")
            return
        scratch.refuse_other(replace)
        network = build(plain, data.classes, seed=seed)
        network.keep(())
        shapes = SignalShapes(data.classes)
        labels_alone = ObjectiveSetConfig(views="fresh", objectives=(ObjectiveEntry(name="hard-label"),))
        objectives = objective_set("teacher", labels_alone, shapes, shapes, data, seed)
        steps = Steps.fresh(data.training, data.views, training, seed)
        scorer = Scorer.of(data, inputs.evaluate, training)
        result = train(
            network,
            objectives,
            steps,
            seed=seed,
            folder=scratch.folder,
            progress=Lines(),
            score=scorer.top1 if scorer else None,
            name="teacher",
        )
        facts = {"model": inputs.teacher.model, "seed": seed}
        write_run(scratch.folder, weights.name, result, scorer, facts, inputs)
        scratch.publish(replace)
    print(f"{weights}: trained in {result.seconds:.0f} s")
