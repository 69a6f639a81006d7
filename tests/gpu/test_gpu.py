"""What only a GPU can answer, in about a minute: `make test-gpu`. Elsewhere these tests are collected and skipped.

What is asked of a GPU without one is in tests/contracts/test_step_costs.py, tests/models/test_device.py and
tests/store/test_teacher_pass.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.objective_cases import VARIANTS, as_leaves, batch, build, signals, total
from contracts.test_views import cases
from store.store_standins import teachers
from training.training_pieces import HARD, KD, LFCC, SMALL, VIT, Interrupting, network, objectives, same, steps

from pipeline import plugins
from pipeline.commands.side_by_side import trained_in_turn
from pipeline.contracts.encodings import EncodingContract
from pipeline.contracts.mixing import MixingContract
from pipeline.contracts.operations import OperationContract
from pipeline.models.device import reproducible
from pipeline.progress import Progress, Silent
from pipeline.signals.lowpass import FILTERS, lowpass
from pipeline.stepwise import Stepwise, all_at_once
from pipeline.store.encodings import ENCODINGS
from pipeline.training import Checkpoint, Step, TrainingResult
from pipeline.training.encoded_outputs import tensors_of
from pipeline.training.loop import train_by_steps
from pipeline.training.resident import resident_steps
from pipeline.views import ViewsConfig, build_views

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use: `make test-gpu`"),
]
GPU = "cuda"
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet": {"kind": SMALL, "entries": (HARD, KD, LFCC)},
    "vit": {"kind": VIT, "entries": (HARD, KD), "optimizer": "adamw", "learning_rate": 1e-3},
    "vit that drops paths": {"kind": VIT, "entries": (HARD, KD), "options": {"drop_path_rate": 0.3}},
}


def moved(given: Any, device: str) -> Any:
    """Tensors, and what holds some, on a device; a leaf there is a leaf."""
    if isinstance(given, torch.Tensor):
        there = given.detach().to(device)
        return there.requires_grad_(given.requires_grad) if given.is_floating_point() else there
    if isinstance(given, Mapping):
        return {name: moved(each, device) for name, each in given.items()}
    if is_dataclass(given) and not isinstance(given, type):
        return replace(given, **{each.name: moved(getattr(given, each.name), device) for each in fields(given)})
    return given


@pytest.mark.parametrize("operation", cases())
def test_views_have_the_same_pixels(operation: dict[str, Any]) -> None:
    OperationContract(operation).a_gpu_makes_the_same_pixels()


@pytest.mark.parametrize("operation", cases(mixing=True))
def test_mixed_views_have_the_same_pixels(operation: dict[str, Any]) -> None:
    MixingContract(operation).a_gpu_makes_the_same_pixels()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_photographs_have_the_same_pixels(interpolation: str) -> None:
    """In chunks of another size than on a CPU, of which there are several."""
    operation = {"name": "resize", "size": 224, "interpolation": interpolation}
    views = build_views(ViewsConfig.model_validate({"operations": [operation]}), (375, 500))
    images = torch.randint(0, 256, (150, 3, 375, 500), dtype=torch.uint8)
    none = torch.empty(len(images), 0, dtype=torch.int32)
    assert torch.equal(views.apply(images.to(GPU), none).cpu(), views.apply(images, none))


@pytest.mark.parametrize("name", plugins.names(ENCODINGS))
def test_encodings_say_the_same(name: str) -> None:
    EncodingContract({"name": name}).a_gpu_reads_the_same_values()


@pytest.mark.parametrize("name", plugins.names(FILTERS))
def test_filters_say_the_same_and_wait_for_nothing_the_second_time(name: str) -> None:
    maps = torch.randn(8, 16, 11, 13)
    expected = lowpass(maps, 4, name)
    there = maps.to(GPU)
    with reproducible(there.device):
        torch.testing.assert_close(lowpass(there, 4, name).cpu(), expected, rtol=1e-5, atol=1e-6)
        torch.cuda.set_sync_debug_mode("error")
        try:
            again = lowpass(there, 4, name)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.testing.assert_close(again.cpu(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_methods_have_the_values_and_gradients_of_a_cpu(name: str, options: dict[str, Any], progress: float) -> None:
    objective = build(name, options)
    given, teacher = batch(6, objective.needs.views), signals("teacher", 6, 2).detached()

    def computed(device: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        here = deepcopy(objective).to(device)
        student, leaves = as_leaves(moved(signals("student", 6, 1), device))
        with reproducible(torch.device(device)):
            terms = here(student, moved(teacher, device), moved(given, device), progress)
            total(terms).backward()
        gradients = {leaf: x.grad.cpu() for leaf, x in leaves.items() if x.grad is not None}
        own = {key: p.grad.cpu() for key, p in here.named_parameters() if p.grad is not None}
        return {term: value.detach().cpu() for term, value in terms.items()}, gradients | own

    (expected, slopes), (terms, found) = computed("cpu"), computed(GPU)
    torch.testing.assert_close(terms, expected, rtol=1e-3, atol=1e-5)
    assert found.keys() == slopes.keys()
    for leaf, slope in slopes.items():
        assert (found[leaf] - slope).norm() <= 1e-3 * slope.norm() + 1e-6, leaf


def training(
    road: Path,
    folder: Path | None = None,
    *,
    kind: Any,
    entries: tuple[dict[str, Any], ...],
    options: dict[str, Any] | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    **changes: Any,
) -> Stepwise[TrainingResult]:
    """A run of three epochs of three steps on the GPU, from the cache of `road`."""
    student = network(kind, seed, **(options or {}))
    chosen, run = objectives(student, *entries), steps(road, seed=seed, **{"device": GPU, **changes})
    return (yield from train_by_steps(student, chosen, run, seed=seed, folder=folder, progress=progress or Silent()))


trained = all_at_once(training)


def weights(result: TrainingResult) -> dict[str, torch.Tensor]:
    return result.network.model.state_dict()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_run_repeats_itself_bit_by_bit(road: Path, tmp_path: Path, name: str, precision: str) -> None:
    """Twice the same, and once more killed and resumed, while torch's own generators are somewhere else."""
    settings = {**NETWORKS[name], "precision": precision}
    first, second = trained(road, **settings), trained(road, **settings)
    assert same(weights(first), weights(second))
    assert first.deterministic, "torch warned of an operation that has no deterministic form"
    with pytest.raises(KeyboardInterrupt):
        trained(road, tmp_path, progress=Interrupting(4), **settings)
    found = Checkpoint.load(tmp_path)
    assert found is not None
    assert found.epoch == 1
    torch.rand(7, device=GPU)
    assert same(weights(trained(road, tmp_path, **settings)), weights(first))


def test_a_run_by_worker_processes_is_the_same(road: Path) -> None:
    """Batches come from page-locked memory in another way."""
    settings = NETWORKS["resnet"]
    assert same(weights(trained(road, workers=1, **settings)), weights(trained(road, workers=0, **settings)))


@pytest.mark.parametrize("changes", [{}, {"views_per_step": 2, "batch_size": 22}], ids=["one view", "two views"])
def test_batches_that_lie_there_are_the_loaders_and_wait_for_nothing(road: Path, changes: dict[str, Any]) -> None:
    run = steps(road, device=GPU, **{"batch_size": 11, **changes})
    lying = resident_steps(run, 0, torch.device(GPU))
    assert lying is not None
    for index in range(len(run)):
        begins = index % run.steps_per_epoch == 0  # there the next view is awaited
        torch.cuda.set_sync_debug_mode("default" if begins else "error")
        try:
            found = next(lying)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        wanted = run[index]
        for one, other in zip(tensors(found), tensors(wanted), strict=True):
            assert one.device.type == GPU
            assert torch.equal(one.cpu(), other)
        assert found.host is not None
        assert torch.equal(found.host.sample, wanted.sample)


def tensors(step: Step) -> list[torch.Tensor]:
    stored = tensors_of(step.teacher_outputs) if step.teacher_outputs is not None else []
    return [step.images, step.labels, step.sample, step.view, *stored]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_run_is_the_same_with_what_lies_there_and_without_and_recorded(road: Path, tmp_path: Path, name: str) -> None:
    """And killed and resumed while it is recorded."""
    settings = {**NETWORKS[name], "epochs": 4}
    expected = weights(trained(road, resident=False, **settings))
    assert same(weights(trained(road, resident=True, **settings)), expected)
    for resident in (False, True):
        assert same(weights(trained(road, resident=resident, capture=True, **settings)), expected)
    with pytest.raises(KeyboardInterrupt):
        trained(road, tmp_path, progress=Interrupting(8), capture=True, **settings)
    assert same(weights(trained(road, tmp_path, capture=True, **settings)), expected)


@pytest.mark.parametrize("capture", [False, True], ids=["eager", "recorded"])
def test_students_side_by_side_end_as_each_does_alone(road: Path, capture: bool) -> None:
    """Twelve, of which eight at once: records of the same shapes, networks that draw, and runs of differing lengths."""
    students = [
        {**each, "capture": capture, "seed": seed, "epochs": 2 + seed}
        for seed in range(4)
        for each in NETWORKS.values()
    ]
    found = list(trained_in_turn(12, lambda number: training(road, **students[number]), 8, torch.device(GPU)))
    assert sorted(each.number for each in found) == [*range(12)]
    for each in found:
        assert isinstance(each.value, TrainingResult), each.value
        assert each.value.deterministic
        assert same(weights(each.value), weights(trained(road, **students[each.number])))


def outputs(device: str) -> dict[str, Any]:
    """What a teacher says of some views, in micro-batches that follow each other."""
    (teacher,) = teachers(device=torch.device(device), micro_batch=8).values()
    found: dict[str, Any] = {}
    with teacher.inference_mode():
        rendered = [teacher.render(view, range(8)) for view in range(3)]
        pending = [teacher.infer(each, ["logits", "embedding"]) for each in rendered]
        for view, each in enumerate(pending):
            found |= {f"{name} of view {view}": torch.from_numpy(x.copy()) for name, x in each.arrays().items()}
    return found


def test_a_teacher_repeats_itself_and_is_near_that_of_a_cpu() -> None:
    found = outputs(GPU)
    assert same(outputs(GPU), found)
    torch.testing.assert_close(found, outputs("cpu"), rtol=1e-4, atol=1e-5)


def ordinals(of: Callable[[int], str] = torch.cuda.get_device_name) -> list[int]:
    """The numbers of further GPUs of the kind of the first."""
    count = torch.cuda.device_count()
    return [number for number in range(1, count) if of(number) == of(0)]


def test_another_gpu_of_the_kind_says_the_same(road: Path) -> None:
    """Every thread begins with the first one as its own."""
    if not ordinals():
        pytest.skip("there is no second GPU of the kind of the first")
    other, settings = f"cuda:{ordinals()[0]}", NETWORKS["resnet"]
    assert same(outputs(other), outputs("cuda:0"))
    first, second = (trained(road, **{**settings, "device": device}) for device in ("cuda:0", other))
    assert same(weights(first), weights(second))
    assert torch.cuda.current_device() == 0
