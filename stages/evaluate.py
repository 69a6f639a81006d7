"""Measures the teacher and every trained student on one split, and what they cost: the stage `evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import DataError
from pipeline.experiment.experiment import Experiment, ReferenceSections
from pipeline.experiment.networks import trained_network
from pipeline.experiment.reference import open_reference
from pipeline.experiment.runs import RunsSection
from pipeline.experiment.sections import StudentsSection
from pipeline.experiment.source import ConfigFile
from pipeline.measuring.cost import images_per_second, macs, parameters
from pipeline.measuring.metrics import measure
from pipeline.measuring.prediction import predict
from pipeline.models import Network, WithReusedHead
from pipeline.models.device import choose_device, choose_precision
from pipeline.progress import Lines
from pipeline.reporting.ownership import refuse_foreign_evaluation
from pipeline.reporting.results import Evaluation, RunMetrics, StudentResult, TeacherResult, write_evaluation

EVALUATION_BATCH = 500


class Inputs(ReferenceSections, StudentsSection, RunsSection):
    """Declares the sections that this stage reads. Of objective sets only the names count, so no method is imported."""

    objectives: dict[str, Any]


def run(source: ConfigFile) -> None:
    """Write `evaluation.json`, and its accuracies for DVC. Students that are not trained yet are left out, with a note.

    source: the configuration.
    """
    inputs = source.read(Inputs)
    refuse_foreign_evaluation(inputs.runs.evaluation, inputs.runs.metrics)
    experiment = Experiment(inputs)
    _ = experiment.dataset  # opened first, so that a missing data set is reported before missing students
    folders = inputs.runs.folders(inputs.students, inputs.objectives)
    trained = [folder for folder in folders if (folder / "metrics.json").exists()]
    if not trained:
        where = inputs.runs.path / "students"
        raise DataError("no student is trained yet", where=where, fix="run `pipeline train-student`")
    for folder in folders:
        if folder not in trained:
            print(f"note: {folder} is not trained yet and left out", file=sys.stderr)
    evaluator, progress = Evaluator(experiment), Lines()
    progress.begin("evaluating", len(trained), "students")
    students = []
    for folder in trained:
        students.append(evaluator.student(folder))
        progress.advance(1, folder.as_posix())
    progress.end()
    split, teacher = inputs.evaluate.split, evaluator.teacher()
    evaluation = Evaluation(experiment=source.file.stem, split=split, teacher=teacher, students=tuple(students))
    write_evaluation(evaluation, inputs.runs.evaluation, inputs.runs.metrics)
    print(f"{inputs.runs.evaluation}: {len(students)} students on split {split!r}")


class Evaluator:
    """Measures networks on the same images: accuracy in float32, speed in the precision that suits the device.

    experiment: names the images and the teacher. Raises DataError if images have no labels.
    """

    def __init__(self, experiment: Experiment[Inputs]) -> None:
        self.experiment = experiment
        self.samples, self.views, _ = experiment.evaluation_cache("evaluation")
        if self.samples.labels is None or self.samples.labels.min() < 0:
            fix = "name a labeled split with --set evaluate.split=..."
            raise DataError("the split has images without labels", where=self.samples.split.name, fix=fix)
        self.labels = torch.from_numpy(self.samples.labels)
        channels = self.samples.read(self.samples.positions[:1])[0].shape[0]
        height, width = self.views.output_size or (0, 0)  # `one_view` refuses views that leave sizes open
        self.shape = (channels, height, width)
        self.reference = open_reference(experiment, "evaluation")
        self._rates: dict[tuple[str, int], float] = {}

    def measured(self, name: str, network: Network | WithReusedHead, logits: Tensor | None = None) -> dict[str, Any]:
        """Return metrics and cost of a network, as the fields of a result.

        name: of the network; its speed is measured once for a name and its MACs. network: is moved to the device.
        logits: [N, K], where they are known; None computes them.
        """
        cost = {"parameters": parameters(network), "macs": macs(network, self.shape)}
        key, device = (name, cost["macs"]), choose_device()
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if logits is None:
            logits = predict(network, self.samples, self.views, device=device, batch_size=EVALUATION_BATCH)
        if key not in self._rates:
            precision = choose_precision("auto", device)
            rate = images_per_second(network, self.shape, precision=precision, device=device, seconds=0.5)
            self._rates[key] = rate.median
        metrics = measure(logits, self.labels, self.reference.logits if self.reference else None)
        return {"metrics": metrics, **cost, "images_per_second": self._rates[key]}

    def student(self, folder: Path) -> StudentResult:
        """Measure the student in the folder of a run."""
        run = RunMetrics.read(folder / "metrics.json")
        network = trained_network(folder, run.student, self.experiment.classes)
        facts = run.model_dump(include={"student", "objectives", "seed", "model", "train_seconds"})
        return StudentResult(**facts, **self.measured(run.student, network))

    def teacher(self) -> TeacherResult | None:
        """Measure the teacher or ensemble by cached logits, its cost where weights are here; None without a cache."""
        config = self.experiment.config.teacher
        if self.reference is None:
            return None
        logits, name = self.reference.logits, self.reference.name
        if name == config.model and isinstance(config.weights, Path) and config.weights.exists():
            return TeacherResult(model=name, **self.measured("the teacher", self.experiment.teacher, logits))
        return TeacherResult(model=name, metrics=measure(logits, self.labels, logits))
