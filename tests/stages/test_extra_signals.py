"""Extra signals from the configuration to a trained student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment import CLASSES, COUNT, source, student

from pipeline.commands import check
from pipeline.errors import CacheMismatch, ConfigError
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.data import Data
from pipeline.experiment.networks import shapes_of
from pipeline.models import build_network
from pipeline.objectives import Batch, Context, build_objective
from pipeline.signals import Signals, extract, taps_read
from pipeline.store.reader import TeacherCache
from pipeline.views import sizes_of
from pipeline.yaml_text import parse_yaml
from stages import cache_teacher

NAMES = (
    "attention-map/block3",
    "channel-gram/block3",
    "fsp-matrix/block2",
    "channel-std/block3",
    "channel-mean/block3",
)
EXTRAS = (
    "store={path: extras.zarr, rows_per_block: 20}",
    f"signals.extras=[{NAMES[0]}, {{name: {NAMES[1]}, encoding: int8}}, {{name: {NAMES[2]}, encoding: float32}},"
    f" {NAMES[3]}, {NAMES[4]}]",
    "signals.features=null",
)
SETS = (
    "objectives={exact: [{name: hard-label}, {name: at, signal: extra}, {name: ickd, signal: extra},"
    " {name: fsp, signal: extra}, {name: wkd-features, signal: extra, means: extra}]}"
)


@pytest.fixture
def cached(here: Path) -> TeacherCache:
    cache_teacher.run(source(*EXTRAS), part="training", replace=False, wait=False)
    return TeacherCache.open(Path("extras.zarr"))


def live(view: int) -> tuple[Signals, torch.Tensor]:
    """What the teacher says of a view of all samples today, in full, and the view's pixels."""
    experiment = source(*EXTRAS).read(ExperimentConfig)
    data, teacher = Data.open(experiment.data, experiment.views), experiment.teacher
    images = data.training.read(np.arange(COUNT))
    parameters = data.views.parameters(view, data.training.positions, sizes_of(images))
    pixels = data.views.apply(images, parameters)
    network = build_network(teacher.model, CLASSES, teacher.weights, teacher.input_size).eval()
    with torch.no_grad():
        return network(pixels), pixels


def test_what_is_cached_is_what_the_live_teacher_says_and_so_is_what_objectives_make_of_it(cached: TeacherCache):
    pupil = build_network("cifar_resnet8", CLASSES, input_size=8, options={"widths": [16, 16, 16]}, seed=3).eval()
    rows = torch.arange(COUNT)
    batch = Batch(rows % CLASSES, rows, torch.zeros_like(rows))
    for view in cached.views:
        stored, (teacher, pixels) = cached.read(view, np.arange(COUNT)), live(view)
        full = {
            name: extract(name, *(teacher.features[tap] for tap in taps_read(name, list(teacher.features))))
            for name in NAMES
        }
        for spec in cached.manifest.layout.signals[2:]:
            name = spec.name.removeprefix("extras/")
            bound = spec.codec.error_bound(full[name].numpy())
            assert np.all(np.abs(stored.extras[name].numpy() - full[name].numpy()) <= bound + 1e-6)
        own = pupil(pixels)
        for method in ("at", "ickd", "fsp", "wkd-features"):
            torch.manual_seed(0)
            shapes = shapes_of(pupil)
            options: dict[str, Any] = {"signal": "extra"} | ({"means": "extra"} if method == "wkd-features" else {})
            objective = build_objective(method, options, shapes, cached.shapes, Context(COUNT, CLASSES)).eval()
            values = objective(own, stored, batch, 0.5)
            wanted = objective(own, Signals(teacher.logits, extras=full), batch, 0.5)
            torch.testing.assert_close(values, wanted, rtol=2e-2, atol=1e-6)


@pytest.mark.parametrize("name", ["small", "vit"])
def test_students_learn_from_them(cached: TeacherCache, name: str):
    folder = student(name, "exact", *EXTRAS, SETS)
    header = (folder / "history.csv").read_text().splitlines()[0].split(",")
    assert {"at/attention", "ickd/correlation", "fsp/flow", "wkd-features/mean", "wkd-features/deviation"} <= set(
        header
    )
    assert json.loads((folder / "metrics.json").read_text())["final_loss"] > 0
    used = parse_yaml((folder / "config.yaml").read_text(), "")
    assert [extra["name"] for extra in used["signals"]["extras"]] == list(NAMES)
    assert [extra["encoding"] for extra in used["signals"]["extras"]] == [
        "float16",
        "int8",
        "float32",
        "float16",
        "float16",
    ]


def test_check_says_what_they_take(here: Path, capsys: pytest.CaptureFixture[str]):
    check.run(source(*EXTRAS, SETS), as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    # 2 x 2 places; 64 x 64 channels and a scale for each row; 32 x 64 channels.
    assert ["extras/attention-map/block3", "8*", "16", "12", "-"] in lines
    assert ["extras/channel-gram/block3", "8,192", "16,384", "4,352*", "-"] in lines
    assert ["extras/fsp-matrix/block2", "4,096", "8,192*", "2,176", "-"] in lines
    assert ["extras/channel-std/block3", "128*", "256", "320", "-"] in lines  # the whole map alone has several places


def test_objectives_without_them_name_the_line_to_add(here: Path):
    with pytest.raises(ConfigError) as error:
        check.run(source(SETS), as_json=False)
    for name in NAMES:
        assert f"do: add `extras: [{name}]` to `signals` and cache the teacher again" in str(error.value)
    assert "objectives.exact.1: needs the teacher's extra signal attention-map/block3" in str(error.value)


def test_a_cache_without_them_is_not_what_the_configuration_says(here: Path):
    with pytest.raises(CacheMismatch, match=r"signals\.extras\.attention-map/block3"):
        student("small", "kd", f"signals.extras=[{NAMES[0]}]")


def test_unknown_taps_and_encodings_are_told_before_anything_runs(here: Path):
    wrong = "signals.extras=[channel-gram/block9, {name: fsp-matrix/block1, encoding: topk}]"
    with pytest.raises(ConfigError) as error:
        check.run(source(wrong), as_json=True)
    assert "signals.extras.0.name: unknown name 'channel-gram/block9'" in str(error.value)
    assert "signals.extras.1.encoding: 'topk' writes logits only" in str(error.value)
