"""Fingerprints are those of version 0.1: a cache, a teacher or a student of then is still "already there".

The values were recorded with version 0.1. What would make them differ between machines is kept out: the teacher's
weights are made of whole numbers here, and a student's start, which torch draws, is left out of its identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from experiment import begin, images, source, student

import pipeline.store.format.sections
from pipeline.experiment.source import ConfigFile
from pipeline.models import build_network
from pipeline.publishing import fingerprint
from pipeline.store.reader import TeacherCache
from stages import cache_teacher, prepare_data, train_student, train_teacher

ROOT = Path(__file__).resolve().parents[2]
RECORDED = {
    "tiny": {
        "teacher": "b3444643481a75d67d89735c9a080ff8b91c7c810c7cf30694bcfe9af74a14ed",
        "tiny": "5daad87b752b2386568422448d63d268d3b248d45ef4885106ea7f1c463a368f",
        "tiny.holdout": "e0ba14cc4f4ebf2be5cc13318b4c0a7e66a551da724cace024c65bf9d8f976f3",
        "tiny.evaluation": "c1b8d47315bbb879bb0e2c97c7dc3bca3c8d4ad2f18c5f98ca744b236ab3e219",
        "small/hard": "acc4b6d945ca09f3dab1458e030d9d26f2e273479630cc4ce49676fa9171df41",
        "small/kd": "a3ab66618ae65b8dceaf5c4d02680fee349d03ddd3aee9d1d644c32f8a1ced60",
        "small/lfcc": "e89b821e36bd53847e4870b4d9dad0a2eb3523736fcb476710d01b109b618226",
        "vit/hard": "8c5e801dee04b23630e493c5fe112a6507ed59d0d1d5f1e04e9ce4e8e2094ec4",
        "vit/kd": "4fd48c5c59caef496c309061173146f89903d8cd5780cd6f8a66369975ab36ef",
        "vit/lfcc": "48ba3e1418859d7c6f821291f6e7ebdea66bec3682980dbfe118c552b3bd480d",
    },
    "digits": {
        "teacher": "3049c62e2be7ee2e3a163d5131544053f7ec5a88cab03fcb44465745fc84ac55",
        "cache": "713a436d8d4e5b31c99052b4d03fea5afc24148226e4126b41769afdf10d0ada",
    },
    "cifar100": {
        "teacher": "2699c565fd60a72d54d7de17b88c2ca473b2492436d64da90681e20ed8823631",
        "cache": "bc2f2075cf473b14acccb0f50a94503d542f4d04b37f799b8d4104442fd7e5a1",
    },
    "cifar100-methods": {
        "teacher": "2699c565fd60a72d54d7de17b88c2ca473b2492436d64da90681e20ed8823631",
        "cache": "bc2f2075cf473b14acccb0f50a94503d542f4d04b37f799b8d4104442fd7e5a1",
    },
}


class Found(Exception):  # noqa: N818 - not an error: ends a run as soon as its identity is known
    """The identity that a run was about to hash."""

    def __init__(self, identity: Mapping[str, Any]) -> None:
        self.identity = {key: value for key, value in identity.items() if key != "start"}


def _found(identity: Mapping[str, Any]) -> str:
    raise Found(identity)


def _of(run: Any, patch: pytest.MonkeyPatch, module: Any) -> str:
    """The fingerprint of what a run would make."""
    with patch.context() as patched:
        patched.setattr(module, "fingerprint", _found)
        with pytest.raises(Found) as found:
            run()
    return fingerprint(found.value.identity)


def _teacher(path: str, model: str, classes: int, size: int) -> None:
    """Weights that are the same on every machine: multiples of 1/64, positive where they are variances."""
    network = build_network(model, classes, input_size=size, seed=0)
    for number, tensor in enumerate(network.model.state_dict().values()):
        if tensor.is_floating_point():
            values = (np.arange(tensor.numel()) * 7 + number) % 32 + 1
            tensor.copy_(torch.from_numpy(values.astype(np.float32)).view(tensor.shape) / 64)
    network.save(Path(path))


def test_the_tiny_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(begin(tmp_path))
    prepare_data.run(source(), replace=False)
    teach = lambda: train_teacher.run(source(), replace=False, wait=False)  # noqa: E731
    found = {"teacher": _of(teach, monkeypatch, train_teacher)}
    _teacher("whole.safetensors", "cifar_resnet8", 4, 8)
    given = "teacher.weights=whole.safetensors"
    cache_teacher.run(source(given), replace=False, wait=False)
    for name in ("tiny", "tiny.holdout", "tiny.evaluation"):
        found[name] = TeacherCache.open(Path(f"artifacts/caches/{name}.zarr")).manifest.fingerprint
    for name in ("small", "vit"):
        for objectives in ("hard", "kd", "lfcc"):
            train = lambda name=name, objectives=objectives: student(name, objectives, given)  # noqa: E731
            found[f"{name}/{objectives}"] = _of(train, monkeypatch, train_student)
    assert found == RECORDED["tiny"]


@pytest.mark.parametrize("config", ["digits", "cifar100", "cifar100-methods"])
def test_shipped_configurations(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of CIFAR-100's, generated images stand for the real ones."""
    monkeypatch.chdir(tmp_path)
    if config == "digits":
        model, classes, size, overrides = "cifar_resnet20", 10, 16, []
    else:
        with h5py.File("raw.h5", "w") as file:
            for split, count in {"train": 400, "test": 20}.items():
                file[f"{split}/images"] = images(count, 0)[0].repeat(4, 1).repeat(4, 2)
                file[f"{split}/labels"] = np.arange(count) % 100
            file.attrs["class_names"] = str([str(label) for label in range(100)]).replace("'", '"')
        model, classes, size = "cifar_resnet56", 100, 32
        overrides = ["data.source={name: hdf5, path: raw.h5}", "data.limit=300", "data.holdout.count=20"]
    read = lambda *more: ConfigFile(ROOT / f"configs/{config}.yaml", (*overrides, *more))  # noqa: E731
    prepare_data.run(read(), replace=False)
    teach = lambda: train_teacher.run(read(), replace=False, wait=False)  # noqa: E731
    _teacher("whole.safetensors", model, classes, size)
    cache = lambda: cache_teacher.run(  # noqa: E731
        read("teacher.weights=whole.safetensors"), part="training", replace=False, wait=False
    )
    found = {
        "teacher": _of(teach, monkeypatch, train_teacher),
        "cache": _of(cache, monkeypatch, pipeline.store.format.sections),
    }
    assert found == RECORDED[config]
