"""A cache of Python serves the commands, and one of the commands serves Python, where the data set is a packed one."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from click.testing import CliRunner
from experiment import CLASSES, COUNT, HOLDOUT, LIMIT, content, student

from pipeline import CachedViews, build_network, cache_teacher, make_views, objective, open_packed
from pipeline.cli import main
from pipeline.data import Samples
from pipeline.models import Network
from pipeline.store.format.manifest import Manifest
from pipeline.views import ViewsConfig

CACHE = Path("artifacts/caches/tiny.zarr")
SIGNALS = {
    "logits": {"encoding": "float32"},
    "embedding": {"encoding": "float32"},
    "features": {"blocks": ["block2", "block3"], "grid": 2, "encoding": "float32"},
}


def packed() -> Samples:
    return open_packed("data.h5", limit=LIMIT, holdout={"count": HOLDOUT})


def teacher() -> Network:
    return build_network("cifar_resnet8", CLASSES, weights=Path("artifacts/teacher/teacher.safetensors"), input_size=8)


def views() -> ViewsConfig:
    return make_views([{"name": "pad-crop", "padding": 1}, "horizontal-flip"], count=2)


def make(path: Path) -> None:
    options = {"signals": SIGNALS, "precision": "float32", "micro_batch": 16, "rows_per_block": 20}
    cache_teacher(teacher(), packed(), views(), path, device="cpu", progress=False, **options)  # type: ignore[arg-type]


def test_a_cache_of_python_is_that_of_the_command(here: Path) -> None:
    make(Path("mine.zarr"))
    mine, theirs = content(Path("mine.zarr")), content(CACHE)
    assert Manifest.read(Path("mine.zarr")).fingerprint == Manifest.read(CACHE).fingerprint
    apart = {name for name in mine | theirs if mine.get(name) != theirs.get(name)}
    assert apart <= {"zarr.json", "ledger.jsonl"}  # when and where it was made


def test_the_commands_take_a_cache_of_python_for_their_own(here: Path) -> None:
    shutil.rmtree(CACHE)
    CACHE.with_suffix(".zarr.json").unlink(missing_ok=True)
    make(CACHE)
    run = CliRunner().invoke(main, ["cache-teacher", "--config", "tiny.yaml"])
    assert run.exit_code == 0, run.output
    assert "is there already" in run.output
    assert (student("small", "lfcc", "train.epochs=1") / "student.safetensors").exists()
    shown = CliRunner().invoke(main, ["inspect", str(CACHE)])
    assert shown.exit_code == 0, shown.output


def test_python_learns_from_a_cache_of_the_command_as_the_command_does(here: Path) -> None:
    data = CachedViews(CACHE, packed(), views=views(), teacher=teacher(), progress=False)
    assert len(data) == 2 * COUNT
    pupil = build_network("cifar_resnet8", CLASSES, input_size=8, options={"widths": [16, 16, 16]}, seed=0)
    loss = objective([("hard-label", 0.1), ("kd", 0.9, {"temperature": 4})], pupil, data)
    optimizer = torch.optim.SGD(pupil.parameters(), lr=0.05)
    values = []
    loader = data.loader(16, signals=loss.reads)
    for _ in range(6):
        for batch in loader:
            optimizer.zero_grad()
            value = loss(pupil, batch)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            values.append(float(value.detach()))
    assert sum(values[-3:]) < sum(values[:3])


def test_a_cache_of_somebodys_own_module_is_inspected_and_verified(tmp_path: Path) -> None:
    from api_pieces import cached

    path = cached(tmp_path)
    for command in (["inspect", str(path)], ["verify", str(path)]):
        run = CliRunner().invoke(main, command)
        assert run.exit_code == 0, run.output
