"""A tiny experiment, from a data set to a report: generated images, a teacher of a second, two students.

`road` is a folder in which data, teacher and caches are made; `travelled` one in which students are trained too;
`several` one with more caches. They are shared by all tests, which do not change them; `here`, `there`
and `among` are copies to work in.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import xxhash
from numpy.typing import NDArray

from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.measuring.cost import images_per_second, macs
from pipeline.models import build_network
from pipeline.models.taps import examine
from pipeline.progress import Silent
from stages import cache_teacher, prepare_data, train_student, train_teacher

CLASSES = 4
TRAIN, TEST, LIMIT, HOLDOUT = 72, 24, 60, 12
COUNT = LIMIT - HOLDOUT
"""Samples that are learnt from."""

CONFIG = f"""\
data: {{path: data.h5, source: {{name: hdf5, path: raw.h5}}, limit: {LIMIT}, holdout: {{count: {HOLDOUT}}}}}
teacher:
  model: cifar_resnet8
  weights: artifacts/teacher/teacher.safetensors
  input_size: 8
  precision: float32
  micro_batch: 16
  device: cpu
teacher_training: {{epochs: 2, batch_size: 16, precision: float32, device: cpu, checkpoint_epochs: 1}}
views: {{count: 2, operations: [{{name: pad-crop, padding: 1}}, {{name: horizontal-flip}}]}}
signals:
  logits: {{encoding: float32}}
  embedding: {{encoding: float32}}
  features: {{blocks: [block2, block3], grid: 2, encoding: float32}}
store: {{path: artifacts/caches/tiny.zarr, rows_per_block: 20}}
students:
  small: {{model: cifar_resnet8, input_size: 8, options: {{widths: [16, 16, 16]}}}}
  vit:
    model: vit_tiny_patch16_224
    input_size: 16
    options: {{img_size: 16, patch_size: 4, embed_dim: 48, depth: 2, num_heads: 3, global_pool: avg}}
    train: {{optimizer: adamw, learning_rate: 1e-3}}
objectives:
  hard: [{{name: hard-label}}]
  kd: [{{name: hard-label, weight: 0.1}}, {{name: kd, weight: 0.9, temperature: 4}}]
  lfcc: [{{name: hard-label, weight: 0.1}}, {{name: lfcc, width: 16, scales: [1, 2]}}]
train: {{epochs: 2, batch_size: 16, precision: float32, device: cpu, checkpoint_epochs: 1}}
"""

RUNS = [(student, objectives) for student in ("small", "vit") for objectives in ("hard", "kd", "lfcc")]


def images(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Grey images [N, 8, 8, 1] of which every class is bright in a quarter of its own, and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = generator.integers(0, 120, (count, 2, 4, 2, 4, 1))
    for label in range(CLASSES):
        pixels[labels == label, label // 2, :, label % 2] += 100
    return pixels.reshape(count, 8, 8, 1).astype(np.uint8), labels


def begin(folder: Path, config: str = CONFIG) -> Path:
    """A folder with the raw data and `tiny.yaml`."""
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "raw.h5", "w") as file:
        for seed, (split, count) in enumerate({"train": TRAIN, "test": TEST}.items()):
            group = file.create_group(split)
            group["images"], group["labels"] = images(count, seed)
    (folder / "tiny.yaml").write_text(config)
    return folder


def source(*overrides: str) -> ConfigFile:
    """The configuration in the working directory, with overrides."""
    return ConfigFile(Path("tiny.yaml"), overrides)


def student(name: str, objectives: str, *overrides: str, **options: Any) -> Path:
    """Train a student in the working directory; its folder."""
    arguments = {"seed": 0, "output": None, "verify": "full", "replace": False, "wait": False} | options
    seed, output = arguments.pop("seed"), arguments.pop("output")
    train_student.run(source(*overrides), RunName(name, objectives, seed), output, **arguments)
    return output or Path(f"artifacts/tiny/students/{name}/{objectives}/seed-{seed}")


class _Interrupted(Silent):
    def advance(self, amount: int, note: str = "") -> None:
        if note.startswith("epoch 2"):
            raise KeyboardInterrupt


def interrupted(name: str, objectives: str, *overrides: str, **options: Any) -> None:
    """Train a student as `student` does, until Ctrl-C in its second epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_student, "Lines", _Interrupted)
        with pytest.raises(KeyboardInterrupt):
            student(name, objectives, *overrides, **options)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment with data, teacher and caches. Not to be changed."""

    def make(folder: Path) -> None:
        begin(folder)
        with pytest.MonkeyPatch.context() as patch, one_thread():
            _work_in(folder, patch)
            prepare_data.run(source(), replace=False)
            train_teacher.run(source(), replace=False, wait=False)
            cache_teacher.run(source(), replace=False, wait=False)

    return made_once(tmp_path_factory, "road", make)


@pytest.fixture(scope="session")
def travelled(road: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with every student trained. Not to be changed."""

    def make(folder: Path) -> None:
        shutil.copytree(road, folder, copy_function=shutil.copyfile)
        with pytest.MonkeyPatch.context() as patch, one_thread():
            _work_in(folder, patch)
            for name, objectives in RUNS:
                student(name, objectives)

    return made_once(tmp_path_factory, "travelled", make)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that whichever of several pytest workers needs it first makes for all."""
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"made-{name}"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "done").exists():
            shutil.rmtree(shared / "road", ignore_errors=True)  # somebody failed
            make(shared / "road")
            (shared / "done").touch()
    return shared / "road"


MORE = ("store={path: more.zarr, rows_per_block: 13}", "views.first=2")
OTHER = (
    "store={path: other.zarr, rows_per_block: 20}",
    "views.count=4",
    "signals.features=null",
    "teacher.weights=other.safetensors",
    "teacher.options={widths: [16, 16, 32]}",
)


@pytest.fixture(scope="session")
def several(road: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`road` with `more.zarr`, views 2 and 3 of its teacher, and `other.zarr`, views 0 to 3 of another teacher."""

    def make(folder: Path) -> None:
        shutil.copytree(road, folder, copy_function=shutil.copyfile)
        with pytest.MonkeyPatch.context() as patch, one_thread():
            _work_in(folder, patch)
            build_network("cifar_resnet8", CLASSES, input_size=8, options={"widths": [16, 16, 32]}, seed=5).save(
                Path("other.safetensors")
            )
            cache_teacher.run(source(*MORE), part="training", replace=False, wait=False)
            cache_teacher.run(source(*OTHER), replace=False, wait=False)

    return made_once(tmp_path_factory, "several", make)


@pytest.fixture
def here(road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `road`, as the working directory."""
    return moved_to(road, tmp_path / "here", monkeypatch)


@pytest.fixture
def there(travelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `travelled`, as the working directory."""
    return moved_to(travelled, tmp_path / "there", monkeypatch)


@pytest.fixture
def among(several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `several`, as the working directory."""
    return moved_to(several, tmp_path / "among", monkeypatch)


def moved_to(folder: Path, copy: Path, patch: pytest.MonkeyPatch) -> Path:
    """Copy a folder that does not change, and work in the copy."""
    folders, files = _read_once(folder)
    for name in folders:
        os.mkdir(f"{copy}{name}")  # noqa: PTH102 - hundreds of small files, hundreds of times: paths alone take as long
    for name, written in files:
        descriptor = os.open(f"{copy}{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(descriptor, written)
        os.close(descriptor)
    _work_in(copy, patch)
    return copy


@functools.cache
def _read_once(folder: Path) -> tuple[list[str], list[tuple[str, bytes]]]:
    """The folders and files below a folder, by what is appended to its path: of some megabytes."""
    found = sorted(folder.rglob("*"))
    folders = ["", *(f"/{each.relative_to(folder)}" for each in found if each.is_dir())]
    return folders, [(f"/{each.relative_to(folder)}", each.read_bytes()) for each in found if each.is_file()]


def quick_rates(patch: pytest.MonkeyPatch) -> None:
    """The evaluation measures rates on three small batches, instead of half a second for each network."""
    patch.setattr(
        "pipeline.experiment.evaluator.images_per_second",
        lambda *arguments, **options: images_per_second(*arguments, **options | {"seconds": 0.0, "batch_size": 8}),
    )


def known_networks(patch: pytest.MonkeyPatch) -> None:
    """The same networks of torch's, timm's or our layers are examined once, and so are their costs counted.

    Both take several forward passes, in hundreds of tests of something else. `tests/models` and `tests/measuring` ask
    for each by itself.
    """
    patch.setattr("pipeline.models.network.examine", functools.partial(_once, examine))
    patch.setattr("pipeline.experiment.evaluator.macs", functools.partial(_once, macs))


_KNOWN: dict[tuple[object, ...], Any] = {}


def _once(function: Callable[..., Any], network: torch.nn.Module, given: Any, **options: Any) -> Any:
    """What a function finds out about a network, by its layers and weights."""
    homes = {type(module).__module__.partition(".")[0] for module in network.modules()}
    if not homes <= {"torch", "timm", "pipeline"}:
        return function(network, given, **options)
    plain = [(name, value) for name, value in vars(network).items() if isinstance(value, bool | int | str | tuple)]
    weights = xxhash.xxh3_128()
    for name, tensor in network.state_dict().items():
        weights.update(f"{name} {tensor.shape} {tensor.dtype}".encode())
        weights.update(tensor.reshape(-1).view(torch.uint8).numpy())
    key = (function, f"{network} {plain} {options}", weights.digest(), getattr(given, "shape", given))
    if key not in _KNOWN:
        _KNOWN[key] = function(network, given, **options)
    return _KNOWN[key]


@pytest.fixture
def few_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear probe tries two penalties instead of nine."""
    monkeypatch.setattr("pipeline.training.probe_fit.DECAYS", (0.1, 0.03))


@contextmanager
def one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from a second thread, which spins where the cores are busy: 50 times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _work_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk: tests end processes, never the power."""
    patch.chdir(folder)
    patch.setattr(os, "fsync", lambda descriptor: None)
