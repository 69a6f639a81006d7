"""Measures networks on the split that is reported: students by their folders, the teacher by its cached signals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import DataError, ModelError, first_line
from pipeline.experiment.embedding_scores import LabeledBank
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.networks import trained_network
from pipeline.experiment.reference import open_named_references, open_reference
from pipeline.experiment.runs import RunName
from pipeline.experiment.section_sets import ReferenceSections
from pipeline.experiment.sections import StudentsSection, ensemble_mean, scores_embeddings
from pipeline.measuring.answers import Answers
from pipeline.measuring.cost import images_per_second, macs, parameters
from pipeline.measuring.measured import EmbeddingScores
from pipeline.measuring.metrics import measure_signals
from pipeline.measuring.prediction import predict_signals
from pipeline.models import Network, WithReusedHead
from pipeline.models.device import choose_device, choose_precision
from pipeline.reporting.results import RunMetrics, StudentResult, TeacherResult
from pipeline.signals import Signals

EVALUATION_BATCH = 500


class EvaluatedSections(ReferenceSections, StudentsSection):
    """Declares what decides which networks are measured, and on what."""


class Evaluator:
    """Measures networks on the same images: accuracy in float32, speed in the precision that suits the device.

    Args:
        experiment: names the images and the networks.

    `answers` has the classes that each run names, until somebody takes them; None for a network without a classifier.

    Raises DataError if images have no labels.
    """

    def __init__(self, experiment: Experiment[EvaluatedSections]) -> None:
        self.experiment = experiment
        self.samples, self.views, _ = experiment.evaluation_cache("evaluation")
        self.reference = open_reference(experiment, "evaluation")
        self.named = open_named_references(experiment, "evaluation")
        labeled = self.samples.labels is not None and self.samples.labels.min() >= 0
        if not labeled and (experiment.classes or self.reference is None):
            fix = "name a labeled split with --set evaluate.split=..."
            raise DataError("the split has images without labels", where=self.samples.split.name, fix=fix)
        self.labels = self.samples.labels if labeled else None
        config = experiment.config
        scored = labeled and scores_embeddings(config.evaluate, [config.teacher, *config.students.values()])
        self.bank = LabeledBank.of(experiment) if scored else None
        channels = self.samples.read(self.samples.positions[:1])[0].shape[0]
        height, width = self.views.output_size or (0, 0)  # `one_view` refuses views that leave sizes open
        self.shape = (channels, height, width)
        self.answers: dict[RunName, Answers | None] = {}
        self._rates: dict[tuple[str, int], float] = {}

    @property
    def teacher_answers(self) -> Answers | None:
        """Return the classes that the teacher names; None where they are not known, or there are none."""
        return Answers.of(self.reference.signals.logits) if self.reference else None

    def measured(
        self,
        name: str,
        network: Network | WithReusedHead,
        known: Signals | None = None,
        run: RunName | None = None,
    ) -> dict[str, Any]:
        """Return metrics and cost of a network, as the fields of a result.

        Args:
            name: of the network; its speed is measured once for a name and its MACs.
            network: is moved to the device.
            known: its signals of all images; None computes them.
            run: whose `answers` are kept; None keeps none.
        """
        cost = {"parameters": parameters(network), "macs": macs(network, self.shape)}
        key, device = (name, cost["macs"]), choose_device()
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        said = known
        if said is None:
            said = predict_signals(network, self.samples, self.views, device=device, batch_size=EVALUATION_BATCH)
        if key not in self._rates:
            precision = choose_precision("auto", device)
            rate = images_per_second(network, self.shape, precision=precision, device=device, seconds=0.5)
            self._rates[key] = rate.median
        metrics = measure_signals(said, self.labels, self.reference.signals if self.reference else None)
        if run is not None:
            self.answers[run] = Answers.of(said.logits)
        figures = {"metrics": metrics, **cost, "images_per_second": self._rates[key]}
        figures["agreements"] = self._agreements(said)
        return figures | {"embedding": self._embedding_scores(network, said, device)}

    def _embedding_scores(
        self, network: Network | WithReusedHead, said: Signals, device: torch.device
    ) -> EmbeddingScores | None:
        """Return how well labels are found by embeddings; None if that is not asked for, or there are none."""
        if self.bank is None or self.labels is None:
            return None
        if said.embedding is None:  # a cache of logits alone
            said = predict_signals(network, self.samples, self.views, device=device, batch_size=EVALUATION_BATCH)
        if said.embedding is None:
            return None
        return self.bank.scores(network, said.embedding, torch.from_numpy(self.labels), device)

    def _agreements(self, said: Signals) -> dict[str, float]:
        """Return how far a network agrees with each teacher that objectives name."""
        found = {name: measure_signals(said, None, teacher).agreement for name, teacher in self.named.items()}
        return {name: value for name, value in found.items() if value is not None}

    def student(self, folder: Path) -> StudentResult:
        """Measure the student in the folder of a run. Raises ModelError if its outputs are not finite."""
        run = RunMetrics.read(folder / "metrics.json")
        configured = self.experiment.config.students.get(run.student)
        network = trained_network(folder, run.student, self.experiment.classes, configured)
        facts = run.model_dump(include={"student", "objectives", "seed", "model", "train_seconds"})
        name = RunName(run.student, run.objectives, run.seed)
        try:
            return StudentResult(**facts, **self.measured(run.student, network, run=name))
        except ModelError as error:
            fix = "train it again, with a lower train.learning_rate or weight of an objective"
            raise ModelError("this student cannot be measured", where=folder, got=first_line(error), fix=fix) from None

    def teacher(self) -> TeacherResult | None:
        """Measure the teacher or ensemble by cached logits, its cost where weights are here; None without a cache."""
        config = self.experiment.config.teacher
        if self.reference is None:
            return None
        said, name = self.reference.signals, self.reference.name
        here = config.weights_are_here and config.weights != "pretrained"
        own = ensemble_mean(self.experiment.config.caches) is None
        if own and (here or (self.bank is not None and config.weights == "pretrained")):
            try:
                figures = self.measured("the teacher", self.experiment.teacher, said)
                unknown = {"parameters": None, "macs": None} if config.only_teaches else {}  # of a file of ONNX
                return TeacherResult(model=name, **figures | unknown)
            except ModelError as error:
                print(f"note: the teacher's embeddings are not scored: {error}", file=sys.stderr)
        metrics = measure_signals(said, self.labels, said)
        return TeacherResult(model=name, metrics=metrics, agreements=self._agreements(said))
