"""Arguments are taken in every form that people write, and what cannot be used is refused with what to write."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from api_pieces import CLASSES, Convolutions, augment, cached, network, opened, photos
from torch.utils.data import DataLoader

from pipeline import CachedViews, as_network, cache_teacher, make_views, objective
from pipeline.api.arguments import left_as_it_was
from pipeline.errors import PipelineError
from pipeline.store.reader import TeacherCache

QUIET: dict[str, Any] = {"device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache. Not to be changed."""
    return cached(tmp_path_factory.mktemp("arguments"))


@pytest.fixture(scope="module")
def data(path: Path) -> CachedViews:
    return opened(path)


def labeled(last: int) -> list[Any]:
    return [*photos()[:-1], (photos()[-1][0], last)]


def make(folder: Path, *, teacher: Any = None, dataset: Any = None, views: Any = None, **options: Any) -> Any:
    dataset, views = photos() if dataset is None else dataset, augment() if views is None else views
    return cache_teacher(teacher or network(), dataset, views, folder / "c.zarr", **(QUIET | options))


WRONG: dict[str, tuple[Callable[[Path, Any], Any], str]] = {
    "a precision": (lambda f, d: make(f, precision="float16"), "precision: unknown name 'float16'.*'bfloat16'"),
    "rows": (lambda f, d: make(f, rows_per_block=0), "rows_per_block: is no whole number from 1 on"),
    "a micro-batch": (lambda f, d: make(f, micro_batch=0), "micro_batch: is no whole number from 1 on"),
    "a grid": (lambda f, d: make(f, grid=0), "grid: is no whole number from 1 on"),
    "a device": (lambda f, d: make(f, device="cuda:99"), "device 'cuda:99' cannot be used.*device='auto'"),
    "signals": (lambda f, d: make(f, signals="logits"), "arguments of cache_teacher.*signals: "),
    "operations": (lambda f, d: make(f, views=["flip"]), "arguments of make_views.*horizontal-flip"),
    "a label": (lambda f, d: make(f, dataset=labeled(7)), r"none of the 4 classes.*sample 23.*0 to 3.*got: 7"),
    "verify": (lambda f, d: opened(d.cache.path, verify="bites"), "verify: unknown name 'bites'.*'bytes'"),
    "one mean": (lambda f, d: opened(d.cache.path, mean="mean-probabilities"), "mean: .*there is none.*`ensemble`"),
    "a label now": (lambda f, d: opened(d.cache.path, labeled(4)), "sample 23.*got: 4"),
    "few classes": (
        lambda f, d: objective("hard-label", few(), d),
        "label is none of the 2 classes of the student.*sample 2, and 11 more",
    ),
    "a path": (lambda f, d: objective("kd", network(), "cache.zarr"), "expected: CachedViews.*got: str"),
    "no collate": (lambda f, d: next(iter(DataLoader(d, batch_size=4))), "collate_fn=data.collate"),
    "a number": (lambda f, d: as_network(3, input_size=8, mean=0, std=1), "not a torch.nn.Module.*got: int"),
    "a mean": (lambda f, d: network(mean=(123.6, 116.3, 103.5)), r"means lie in \[0, 1\].*by 255"),
    "twice": (lambda f, d: make_views({"operations": []}, count=4), "count: has no effect beside the mapping"),
    "a key": (lambda f, d: make_views({"operatoins": []}), "did you mean 'operations'"),
    "signals of a batch": (
        lambda f, d: objective("crd", network(), d)(network(), next(iter(d.loader(8, signals={"logits"})))),
        "read without embedding.*signals=loss.reads",
    ),
    "a scale": (
        lambda f, d: objective(("lfcc", 1, {"scales": [4]}), network(), d),
        r"arguments of objective.*objectives\[0\].scales.*`grid` of cache_teacher",
    ),
}


def few() -> Any:
    return as_network(Convolutions(classes=2), ["layer1", "layer2"], input_size=8, mean=0.5, std=0.25)


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_used_is_refused_with_what_to_write(tmp_path: Path, data: CachedViews, case: str) -> None:
    do, said = WRONG[case]
    with pytest.raises(PipelineError) as caught:
        do(tmp_path, data)
    assert re.search(said, str(caught.value), re.DOTALL), str(caught.value)
    assert "in the configuration" not in str(caught.value)
    assert not (tmp_path / "c.zarr").exists()


def test_views_are_written_in_every_form() -> None:
    expected = make_views([{"name": "pad-crop", "padding": 1}, "horizontal-flip"], count=4, seed=3)
    operations: list[Any] = [("pad-crop", {"padding": 1}), "horizontal-flip"]
    assert make_views(operations, 4, seed=3) == expected
    assert make_views({"operations": operations, "count": 4, "seed": 3}) == expected
    alone = make_views(["horizontal-flip"])
    assert make_views("horizontal-flip") == make_views({"name": "horizontal-flip"}) == alone
    assert make_views(("pad-crop", {"padding": 1})) == make_views(operations[:1])
    assert make_views(("pad-crop", "horizontal-flip")) == make_views(["pad-crop", "horizontal-flip"])
    assert make_views({"horizontal-flip": 0}.keys()) == alone  # type: ignore[arg-type]


def test_one_name_is_a_list_of_one(tmp_path: Path, data: CachedViews) -> None:
    module = Convolutions()
    given: dict[str, Any] = {"input_size": 8, "mean": 0.5, "std": 0.25}
    assert as_network(module, "layer2", **given).taps == as_network(module, ["layer2"], **given).taps
    path = make(tmp_path, features="layer2", views="horizontal-flip")
    assert list(TeacherCache.open(str(path)).shapes.features) == ["block2"]
    assert CachedViews(path, photos(), views=["horizontal-flip"], progress=False)
    batch = next(iter(data.loader(8, signals="embedding")))
    assert list(batch.teacher_outputs.decode().features) == []  # type: ignore[union-attr]
    values = [float(objective(one, network(), data)(network(), data[0]).detach()) for one in ("kd", ["kd"])]
    assert values[0] == values[1] == 2 * float(objective(("kd", 0.5), network(), data)(network(), data[0]).detach())


def test_the_teacher_is_given_back_as_it_was(tmp_path: Path) -> None:
    teacher = network().train()
    optimizer = torch.optim.SGD(teacher.parameters(), lr=1.0)
    weight = teacher.model.layer1[0].weight
    where, strides = weight.data_ptr(), weight.stride()
    teacher.keep_taps(["block1"])
    make(tmp_path, teacher=teacher, features=["layer2"])
    assert teacher.model.layer1[0].weight is weight
    assert (weight.data_ptr(), weight.stride()) == (where, strides)
    assert teacher.training
    assert list(teacher(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).features) == ["block1"]
    teacher(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).logits.sum().backward()
    before = weight.detach().clone()
    optimizer.step()
    assert not torch.equal(teacher.model.layer1[0].weight, before)


@pytest.mark.parametrize("fails", [False, True])
def test_a_network_comes_back_from_another_device(fails: bool) -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    teacher: Any = network()
    teacher(images).logits.sum().backward()
    teacher.eval()
    before, expected = dict(teacher.named_parameters()), teacher(images).logits
    gradient = teacher.model.fc.weight.grad.clone()
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext(), left_as_it_was(teacher):
        teacher.to("meta")  # the device without memory stands for any other
        assert teacher.model.fc.weight.device.type == "meta"
        if fails:
            raise KeyboardInterrupt
    assert all(parameter is before[name] for name, parameter in teacher.named_parameters())
    assert torch.equal(teacher(images).logits, expected)
    assert torch.equal(teacher.model.fc.weight.grad, gradient)


def test_labels_beyond_the_classes_may_be_kept_without_logits(tmp_path: Path) -> None:
    kept = {"logits": None, "features": {"grid": 2}}
    assert opened(make(tmp_path, dataset=labeled(CLASSES), signals=kept), labeled(CLASSES)).classes == CLASSES + 1


def test_what_is_left_out_is_told_in_a_sentence(tmp_path: Path, data: CachedViews) -> None:
    small = as_network(Convolutions(), ["layer1", "layer2"], input_size=2, mean=0.5, std=0.25)
    with pytest.warns(UserWarning, match="lfcc leaves out scale 2 at the student's block2, whose map has only 1 x 1"):
        objective(("lfcc", 1, {"scales": [1, 2]}), small, data)


def test_the_precision_of_a_device_is_chosen_as_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.api.caching.choose_precision", lambda name, device: {"auto": "bfloat16"}[name])
    path = make(tmp_path, dataset=[(np.zeros((8, 8, 3), np.uint8), 0)] * 2)
    assert TeacherCache.open(str(path)).manifest.identity.teacher.precision == "bfloat16"
