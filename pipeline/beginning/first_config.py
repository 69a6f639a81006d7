"""Writes a first configuration for a folder of images, with a comment on every choice that one may want to change."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.beginning.proposal import Chosen, small_images, teacher_for
from pipeline.beginning.survey import Survey
from pipeline.data.sources._entries import UNLABELED
from pipeline.errors import DataError, printable
from pipeline.models.pretrained import has_no_weights
from pipeline.progress import duration, size

VIEWS = 4
RATE = 1e10
"""About how many multiply-adds a second one core does: for a first guess of times."""


@dataclass(frozen=True)
class Beginning:
    """Holds a first configuration.

    Args:
        text: of the YAML file.
        lists: text files that it names, by their paths.
        commands: what to run next, in order.
    """

    text: str
    lists: Mapping[Path, str] = field(default_factory=dict)
    commands: Sequence[str] = ()


def write_first(survey: Survey, config: Path, teacher: str | None, weights: str | None) -> Beginning:
    """Write a first configuration.

    Args:
        survey: of the images.
        config: where the file will lie.
        teacher: the model; None chooses by the size of the images.
        weights: `pretrained`, a file, or `none` to train from random ones; None chooses.

    Raises DataError if there are too few images, and for weights that nobody has.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", config.stem).lstrip(".-_") or "mine"
    chosen = teacher_for(survey, teacher)
    small = small_images(survey)
    untrained = teacher is not None and has_no_weights(teacher)
    weights = weights or ("none" if untrained or (small and teacher is None) else "pretrained")
    if untrained and weights == "pretrained":
        fix = "leave --weights out, and it is trained from random ones; or name a file of weights"
        raise DataError(f"there are no weights of {teacher} to begin with", fix=fix)
    if not survey.labeled and weights == "none":
        better = "name a file with --weights" if untrained else "name good weights, such as --weights pretrained"
        fix = f"{better}, or put the images into folders of classes"
        raise DataError("images without labels need a teacher that is trained already", where=survey.folder, fix=fix)
    splits, lists = _splits(survey, config)
    sections = [
        _head(survey, config, name),
        _data(survey, name, splits, lists),
        _teacher(survey, name, chosen, weights),
        _views(survey, chosen),
        _cache(survey, name, chosen, len(survey.entries[splits.learnt]) - splits.apart),
        _students(survey, chosen, small),
        _objectives(survey),
        _end(survey, name, chosen, splits),
    ]
    return Beginning("\n".join(sections), lists, _commands(survey, config)[:3])


@dataclass(frozen=True)
class _Splits:
    """learnt: from this split. reported: this one. held: the entry `holdout`. apart: images that are held out or
    listed for another split.
    """

    learnt: str
    reported: str
    held: str
    apart: int


def _splits(survey: Survey, config: Path) -> tuple[_Splits, dict[Path, str]]:
    """Which splits are used for what; where there is only one, lists that take a fifth of it apart."""
    entries = survey.entries
    learnt = "train" if survey.labeled else UNLABELED
    if learnt not in entries:
        raise DataError("there are no images to learn from", where=survey.folder, fix="put them into a folder train")
    count = len(entries[learnt])
    held = max(1, count // 10)
    if count < 10:
        raise DataError(f"{count} images are too few to learn from", where=survey.folder, expected="10 at least")
    if not survey.labeled:
        return _Splits(learnt, learnt, f"{{count: {held}}}", held), {}
    if "test" in entries:
        return _Splits(learnt, "test", "{split: val}" if "val" in entries else f"{{count: {held}}}", 0), {}
    if "val" in entries:
        return _Splits(learnt, "val", f"{{count: {held}}}", held), {}
    draw = random.Random(0)
    train, test = [], []
    for label in range(len(survey.class_names)):
        names = sorted(entry.name for entry in entries[learnt] if entry.label == label)
        draw.shuffle(names)
        cut = max(1, len(names) // 5) if len(names) > 1 else 0
        test += names[:cut]
        train += names[cut:]
    held = max(1, len(train) // 10)
    texts = {
        config.with_name(f"{config.stem}.{split}.txt"): "".join(f"{each}\n" for each in sorted(names))
        for split, names in (("train", train), ("test", test))
    }
    return _Splits(learnt, "test", f"{{count: {held}}}", len(test) + held), texts


def _word(text: str) -> str:
    """A text as a plain word of YAML, or in quotes."""
    return text if re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*", text) else json.dumps(text, ensure_ascii=False)


def _commands(survey: Survey, config: Path) -> list[str]:
    student = "--student small --objectives " + ("kd" if survey.labeled else "maps")
    road = ["prepare-data", "check", *(["train-teacher"] if survey.labeled else []), "cache-teacher"]
    road += [f"train-student {student}", "evaluate", "report", f"export {student}"]
    return [f"pipeline {each} --config {_word(config.as_posix())}" for each in road]


def _head(survey: Survey, config: Path, name: str) -> str:
    found = "".join(f"#   {printable(line).replace(chr(10), ' ')}\n" for line in survey.lines())
    road = "".join(f"#   {command}\n" for command in _commands(survey, config))
    folder = f"experiments/{name}/dvc.yaml"
    return f"""\
# A first configuration, written by `pipeline init`. Found in {survey.folder.as_posix()}:
{found}#
# The whole road, in order; each command goes on where it was stopped. Paths are relative to where they run.
{road}#
# Or all students at once, with DVC: pipeline dvc-file --config {config.as_posix()} --output {folder}
"""


def _data(survey: Survey, name: str, splits: _Splits, lists: Mapping[Path, str]) -> str:
    folder = _word(os.path.normpath(survey.folder.as_posix()))
    if lists:
        train, test = (_word(path.as_posix()) for path in lists)
        source = f"{{name: split-files, path: {folder}, lists: {{train: {train}, test: {test}}}"
        note = "  # there is no folder test: a fifth of every class is listed for it, drawn once"
    elif not survey.labeled:
        source, note = f"{{name: image-folder, path: {folder}, splits: {{unlabeled: .}}", ""
        if survey.source.get("splits") is None:
            source = f"{{name: image-folder, path: {folder}"
    else:
        source, note = f"{{name: image-folder, path: {folder}", ""
    if survey.shorter_side > 320:
        source += ", shorter_side: 256"
        note = note or "  # packed once, reduced: full photographs would be decoded for every view"
    held = "to choose by and to stop by; nothing is learnt from them"
    lines = [f"data:\n  path: artifacts/data/{name}.h5  # `prepare-data` writes it\n  source: {source}}}{note}"]
    lines += ["  split: unlabeled"] if not survey.labeled else []
    lines += [f"  holdout: {splits.held}  # {held}"]
    if survey.unreadable:
        lines += ["  unreadable: skip  # there are some; `prepare-data` lists them"]
    return "\n".join(lines) + "\n"


def _teacher(survey: Survey, name: str, chosen: Chosen, weights: str) -> str:
    known = "pretrained" if weights == "pretrained" else _word(weights)
    match = "" if weights in ("pretrained", "none") else "  match: order  # where names in the file are not timm's\n"
    size_line = f"  input_size: {chosen.input_size}\n"
    batch = 256 if small_images(survey) else 64
    computing = f"  precision: float32  # bfloat16 is faster on a GPU\n  micro_batch: {batch}  # images at once\n"
    if not survey.labeled:
        return (
            f"teacher:\n  model: {_word(chosen.model)}  # any of timm's; docs/models.md has other libraries'\n"
            f"  weights: {known}\n{match}  head: none  # it ends in its embedding: there are no classes\n"
            f"{size_line}{computing}"
        )
    text = (
        f"teacher:\n  model: {_word(chosen.model)}  # any of timm's; docs/models.md has other libraries'\n"
        f"  weights: artifacts/teachers/{name}/teacher.safetensors  # `train-teacher` writes it\n"
        f"{match}{size_line}{computing}\n"
    )
    if weights == "none":
        return text + (
            "teacher_training:  # from random weights: right for small images, hopeless for few photographs\n"
            "  epochs: 60\n  batch_size: 64\n  learning_rate: 0.05\n  warmup_epochs: 2\n"
        )
    return text + (
        f"teacher_training:  # a new classifier on old weights, in minutes; without `freeze` all weights are tuned\n"
        f"  start: {known}\n  freeze: backbone\n  probe: 2  # views of each image\n"
    )


def _views(survey: Survey, chosen: Chosen) -> str:
    side = chosen.input_size
    if small_images(survey) and survey.one_size:
        crop = f"    - {{name: pad-crop, padding: {max(1, survey.shorter_side // 8)}}}\n"
    else:
        crop = f"    - {{name: resized-crop, size: {side}, scale: [0.3, 1.0]}}\n"
    return (
        f"views:  # what the teacher sees and students learn from; docs/views.md has more\n  count: {VIEWS}\n"
        f"  operations:\n{crop}"
        "    - {name: horizontal-flip}  # remove it where left and right matter, as in writing\n"
    )


def _cache(survey: Survey, name: str, chosen: Chosen, learnt: int) -> str:
    numbers = chosen.width + (len(survey.class_names) if survey.labeled else chosen.kept)
    cores = os.cpu_count() or 1
    if chosen.named:  # how wide it is, and what it costs, is not known before it is built
        return (
            "# `pipeline check` says how many bytes this takes, and how long, once the images are packed.\n"
            f"signals:\n{_signals(survey)}\nstore: {{path: artifacts/caches/{name}.zarr}}\n"
        )
    written = size(2 * numbers * VIEWS * learnt)
    seconds = duration(VIEWS * learnt * chosen.macs / (RATE * cores))
    return (
        f"# About {written} for {learnt:,} images, and {seconds} for the teacher on these {cores} cores; less on a\n"
        "# GPU. `pipeline check` measures both on this machine, once the images are packed.\n"
        f"signals:\n{_signals(survey)}\n"
        f"store: {{path: artifacts/caches/{name}.zarr}}\n"
    )


def _signals(survey: Survey) -> str:
    maps = f"features: {{blocks: {2 if small_images(survey) else 1}, grid: 4}}"
    if survey.labeled:
        return f"  logits: {{encoding: float16}}\n  # {maps}  # deep maps, for methods that read them, such as lfcc\n"
    return f"  logits: null\n  {maps}  # the deepest maps, on 4 x 4 places\n"


def _students(survey: Survey, chosen: Chosen, small: bool) -> str:
    head = "" if survey.labeled else ", head: none"
    if small:
        side = chosen.input_size
        return (
            "students:\n"
            f"  small: {{model: cifar_resnet8, input_size: {side}, options: {{widths: [16, 16, 16]}}{head}}}\n"
            f"  # medium: {{model: cifar_resnet8, input_size: {side}{head}}}\n"
        )
    return (
        "students:  # `start: pretrained` begins with timm's own weights: better, where images are few\n"
        f"  small: {{model: mobilenetv3_small_050, input_size: 160{head}}}\n"
        f"  # large: {{model: mobilenetv3_large_100, input_size: 160, start: pretrained{head}}}\n"
    )


def _objectives(survey: Survey) -> str:
    if not survey.labeled:
        return (
            "objectives:  # `pipeline methods` lists others\n"
            "  embedding: [vkd]\n"
            "  maps: [{name: vkd}, {name: lfcc, weight: 0.3, scales: [1, 2]}]\n"
        )
    return (
        "objectives:  # each student is trained with each; `pipeline methods` lists others\n"
        "  hard: {views: fresh, objectives: [{name: hard-label}]}  # labels alone: what to compare with\n"
        "  kd: [{name: hard-label, weight: 0.1}, {name: kd, weight: 0.9, temperature: 4}]\n"
    )


def _end(survey: Survey, name: str, chosen: Chosen, splits: _Splits) -> str:
    if small_images(survey):
        train = "train: {epochs: 30, batch_size: 64, learning_rate: 0.05, warmup_epochs: 1}\n"
    else:
        train = "train: {epochs: 16, batch_size: 64, optimizer: adamw, learning_rate: 2e-3, weight_decay: 0.05}\n"
    side = chosen.input_size
    learnt = "  # students learn from these, so scores flatter: name other images, if you have some"
    seen = "" if survey.labeled else learnt
    if not (small_images(survey) and survey.one_size):
        seen += f"\n  operations: [{{name: resize, size: {side}}}, {{name: center-crop, size: {side}}}]"
    return (
        f"{train}\nevaluate:\n  split: {splits.reported}{seen}\n\n"
        f"runs: {{path: artifacts/{name}, seeds: [0]}}  # seeds: [0, 1, 2] says how far results differ by chance\n"
    )
