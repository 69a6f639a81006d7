"""Writes what a student's folder says of it: `model.json` for programs, and a model card for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import ConfigError
from pipeline.experiment.data import one_view
from pipeline.experiment.model_file import MODEL_FILE, Architecture, LearntFrom, ModelFile, ModelInput
from pipeline.experiment.students import StudentRun
from pipeline.models import Network, WithReusedHead
from pipeline.models.kinds import name_for_people
from pipeline.models.preprocessing import height_and_width
from pipeline.version import installed_version

MODEL_CARD = "model-card.md"
MOST_NAMES = 20


def description(run: StudentRun, network: Network | WithReusedHead, metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts that describe a trained student, by the names of their files.

    Args:
        run: its settings and data.
        network: as it was trained.
        metrics: of the run, as in `metrics.json`.
    """
    described = ModelFile(
        decant=installed_version(),
        student=run.name.student,
        objectives=run.name.objectives,
        network=_architecture(run, network),
        classes=run.experiment.data.dataset.class_names,
        input=_input(run),
        learnt=_learnt(run, metrics),
        parameters=metrics["parameters"],
        holdout=metrics["holdout"],
    )
    return {MODEL_FILE: described.text(), MODEL_CARD: model_card(described)}


def _architecture(run: StudentRun, network: Network | WithReusedHead) -> Architecture:
    built, config = run.network, run.config
    return Architecture(
        model=config.model,
        options=config.model_dump(mode="json")["options"],
        blocks=config.blocks,
        head=None if config.head == "none" else config.head,
        num_classes=built.num_classes,
        input_size=height_and_width(built.input_size),
        mean=built.mean,
        std=built.std,
        interpolation=built.interpolation,
        reused_head=isinstance(network, WithReusedHead),
    )


def _input(run: StudentRun) -> ModelInput:
    data, config = run.experiment.data, run.experiment.config
    samples = data.holdout or data.training
    try:
        size = one_view(samples, config.evaluate.operations).output_size
    except ConfigError:  # what does not fit is said by those who evaluate: here a training has ended well
        size = None
    origin, source = data.dataset.origin, config.data.source
    packed = origin.source if origin is not None else source.identity() if source is not None else {}
    decoding = config.data.decoding.model_copy(update=data.dataset.split(samples.split.name).choices)
    return ModelInput(
        channels=data.channels,
        size=size,
        decoding=decoding,
        shorter_side=packed.get("shorter_side"),
        **({"quality": packed["quality"]} if "quality" in packed else {}),
        stored="files" if samples.split.image_shape is None else "pixels",
        store=packed.get("store", "files"),
        operations=tuple(each.model_dump(mode="json") for each in config.evaluate.operations),
    )


def _learnt(run: StudentRun, metrics: Mapping[str, Any]) -> LearntFrom:
    data = run.experiment.data
    teacher = run.caches.primary.manifest.identity.teacher if run.caches is not None else None
    return LearntFrom(
        split=data.training.split.name,
        samples=data.training.count,
        holdout=data.holdout.count if data.holdout is not None else 0,
        teacher=name_for_people(teacher.model, run.experiment.config.teacher.model) if teacher is not None else None,
        teacher_weights=teacher.weights if teacher is not None else None,
        objectives=tuple(each.model_dump(mode="json") for each in run.objectives_config.objectives),
        seed=run.name.seed,
        epochs=metrics["epochs"],
    )


def model_card(model: ModelFile) -> str:
    """Write the page for people who find the weights.

    Args:
        model: its description.
    """
    network, seen, learnt = model.network, model.input, model.learnt
    height, width = network.input_size
    names = ", ".join(map(_code, model.classes[:MOST_NAMES]))
    more = len(model.classes) - MOST_NAMES
    channels = "grey" if len(network.mean) == 1 else f"{len(network.mean)} channels"
    operations = ", then ".join(_code(_operation(each)) for each in seen.operations)
    methods = ", ".join(_code(each.get("name", "?")) for each in learnt.objectives)
    lines = [
        f"# {model.name}",
        "",
        f"A student that Decant trained: the network {_code(network.model)} with {model.parameters:,} parameters.",
        "",
        "## What it takes and what it says",
        "",
        f"- Input: {height} x {width} pixels, {channels}, normalised with mean {list(network.mean)} and std "
        f"{list(network.std)} in units of the range [0, 1].",
        f"- Images of another size are resized to that, antialiased, {network.interpolation}.",
        f"- Before that: {operations or 'nothing, the image as it is'}.",
        f"- Output: {network.num_classes} classes: {names}{f', and {more} more' if more > 0 else ''}."
        if network.num_classes
        else "- Output: an embedding. It has no classifier.",
        "",
        "`model.json` has all of it for programs: the options of the network, and how files are decoded.",
        "Other means, sizes or crops cost accuracy. `pipeline predict PHOTO --model FOLDER` does it right.",
        "",
        "## What it learnt from",
        "",
        f"- {learnt.samples:,} samples of split {_code(learnt.split)}; {learnt.holdout:,} were held out.",
        f"- Teacher: {_code(learnt.teacher) if learnt.teacher else 'none: labels and fresh views'}.",
        f"- Methods: {methods}. Seed {learnt.seed}, {learnt.epochs} epochs.",
        "",
        "## How good it is on what was held out",
        "",
        *_measured(model.holdout),
        "",
    ]
    return "\n".join(lines)


def _measured(metrics: Mapping[str, Any] | None) -> list[str]:
    if metrics is None:
        return ["Nothing was held out. `pipeline evaluate` measures it on other images."]
    rows = [f"| {name} | {value:,.4g} |" for name, value in metrics.items() if isinstance(value, int | float)]
    return ["| metric | value |", "| --- | ---: |", *rows]


def _operation(options: Mapping[str, Any]) -> str:
    given = ", ".join(f"{key}: {value}" for key, value in options.items() if key != "name")
    return f"{options.get('name')} ({given})" if given else str(options.get("name"))


def _code(text: object) -> str:
    """Return a text from elsewhere as code of Markdown, in which nothing has a meaning."""
    return "`" + str(text).replace("`", "'").replace("\n", " ") + "`"
