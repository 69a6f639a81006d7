"""Several processes that train one student end as one does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from contracts.objective_cases import NAMES
from processes import begin_process, finished
from timm.layers import EvoNorm2dB0, EvoNorm2dB1, EvoNorm2dB2, FrozenBatchNormAct2d  # type: ignore[attr-defined]
from torch import nn
from training.parallel_pieces import cases, one_of_several, state_after

from pipeline.errors import ConfigError, TrainingError
from pipeline.models import build_network
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.config import TrainConfig
from pipeline.training.parallel.collectives import EndedElsewhere, NotComing, all_there
from pipeline.training.parallel.layers import refuse_layers
from pipeline.training.parallel.torchrun import SeveralProcesses, wait_for
from pipeline.training.share import Share
from pipeline.training.world import World

Case = tuple[str, dict[str, Any], dict[str, Any]]


def ended(folder: Path, chosen: Sequence[Case], size: int = 2) -> list[list[Any]]:
    """What each of several processes ended with, by case: its weights, or what it said."""
    arguments = [(rank, size, folder, chosen) for rank in range(size)]
    begun = [begin_process(one_of_several, *each, log=folder / f"{each[0]}.log") for each in arguments]
    for rank, process in enumerate(begun):
        assert finished(process) == 0, (folder / f"{rank}.log").read_text()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def agree(chosen: Sequence[Case], every: list[list[Any]]) -> None:
    """With one process, but for rounding, and with each other bit for bit."""
    first, *others = every
    for number, (method, options, settings) in enumerate(chosen):
        alone = state_after(method, options, World(), **settings)
        assert list(alone) == list(first[number])
        for name, value in alone.items():
            got = first[number][name]
            torch.testing.assert_close(got, value, rtol=1e-8, atol=1e-10, msg=lambda m, at=(method, name): f"{at} {m}")
            assert all(torch.equal(other[number][name], got) for other in others)


@pytest.mark.long
@pytest.mark.parametrize("size", [2, 3])
def test_every_method_ends_as_with_one_process(tmp_path: Path, size: int) -> None:
    chosen = cases(NAMES)
    agree(chosen, ended(tmp_path, chosen, size))


def test_two_processes_end_as_one_and_go_on_as_they_began(tmp_path: Path) -> None:
    """Of five samples one process has three. In float64.

    A method of single samples with all that an optimiser's step has; one that reads the student's classifier, whose
    layer normalises batches, from its checkpoint on too; and a loss that is not finite for the last sample.
    """
    settings = {"accumulate": 2, "batch_size": 3, "clip_gradient": 0.1, "ema": 0.5}
    chosen: list[Case] = [("kd", {}, settings), ("srrl", {}, {}), ("kd", {}, {"poisoned": 1})]
    resumed: Case = ("srrl", {}, {"resumed": str(tmp_path)})
    every = ended(tmp_path, [*chosen, resumed])
    agree(chosen[:2], every)
    for one in every:
        assert all(torch.equal(one[3][name], value) for name, value in one[1].items())
        assert one[2].startswith("the loss is not finite at step 1;"), "all of them say so, since all have the loss"
        assert one[2] == every[0][2]
    found = Checkpoint.load(tmp_path)
    assert found is not None
    assert found.processes == 2
    with pytest.raises(TrainingError, match=r"(?s)of another number.*expected: 2\n.*got: 3\n.*--nproc-per-node 2 "):
        found.restored(tmp_path, 4, 3, lambda _: None)


def test_what_one_process_alone_can_do_is_refused() -> None:
    """Batches have a sample for each process."""
    config = TrainConfig(batch_size=6, views_per_step=2, capture=True, compile=True)
    with pytest.raises(ConfigError, match=r"(?s)train.batch_size: each of the 3 processes.*batches of 2\n") as refused:
        SeveralProcesses(Share(0, 3)).refuse(config, 5)
    assert [each.key for each in refused.value.problems] == ["train.capture", "train.compile", "train.batch_size"]


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    world = SeveralProcesses(Share(3, 4, local=2))
    assert world.device(torch.device("cpu")) == torch.device("cpu")
    assert world.device(torch.device("cuda")) == torch.device("cuda:1")
    assert current == [torch.device("cuda:1")]
    with pytest.raises(ConfigError, match=r"train\.device: names one GPU"):
        world.device(torch.device("cuda:0"))
    with pytest.raises(ConfigError, match="3 processes of this machine need a GPU each"):
        SeveralProcesses(Share(0, 3, local=3)).device(torch.device("cuda"))


def test_a_process_that_is_gone_is_named_as_such() -> None:
    with pytest.raises(EndedElsewhere, match="another of the processes") as error, all_there():
        raise RuntimeError("Connection closed by peer [127.0.0.1]:1")
    assert "got: Connection closed by peer" in str(error.value)


def test_memory_that_runs_out_in_an_exchange_is_told_as_that() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"), all_there():
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_process_that_does_not_come_is_named_as_such() -> None:
    """In torch's own words, and in those of gloo within an exchange."""
    message = r"(?s)has not ended, and does not come.*expected: it within 30 minutes\n.*do: look at what the other"
    with pytest.raises(NotComing, match=message), all_there():
        dist.HashStore().wait(["never"], timedelta(milliseconds=1))
    with pytest.raises(NotComing, match=message), all_there():
        raise RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv operation")


def test_work_of_another_process_is_waited_for_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two of them a signal ends the process, such as the one of torchrun when another process has ended."""
    monkeypatch.setattr("pipeline.training.parallel.torchrun.SLICE", timedelta(milliseconds=1))
    store, slices = dist.HashStore(), list[int]()

    class Watched:
        def wait(self, keys: list[str], longest: timedelta) -> None:
            slices.append(len(slices))
            if len(slices) == 3:
                store.set("done", "")
            store.wait(keys, longest)

    wait_for("done", Watched())  # type: ignore[arg-type]
    assert len(slices) == 3
    monkeypatch.setattr("pipeline.training.parallel.torchrun.PATIENCE", timedelta(0))
    with pytest.raises(dist.DistStoreError):
        wait_for("never", store)


@pytest.mark.parametrize("norm", [EvoNorm2dB0, EvoNorm2dB1, EvoNorm2dB2])
def test_layers_with_statistics_of_their_own_are_refused(norm: type[nn.Module]) -> None:
    """The network is as before."""
    student = build_network("cifar_resnet8", 3, input_size=16, seed=0)
    refuse_layers(student)
    student.model.get_submodule("layer2.0").bn1 = norm(32)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with pytest.raises(ConfigError, match=rf"(?s)statistics of a batch.*{norm.__name__} \(layer2\.0\.bn1\)"):
        refuse_layers(student.eval())
    assert not student.training
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())


def test_layers_that_are_left_out_by_chance_are_refused_if_they_normalise_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = build_network("cifar_resnet8", 3, input_size=16, seed=0)
    block = student.model.get_submodule("layer1.0")
    whole = block.forward
    monkeypatch.setattr(block, "forward", lambda x: whole(x) if torch.rand(()) < 0.5 else x)
    with pytest.raises(ConfigError, match="leaves out layers by chance that normalise batches"):
        refuse_layers(student)


def test_layers_that_processes_can_run_are_not_refused() -> None:
    """Statistics that are frozen, and what is drawn for every image by itself."""
    student = build_network("cifar_resnet8", 3, input_size=16, seed=0)
    student.model.get_submodule("layer2.0").bn1 = FrozenBatchNormAct2d(32)
    refuse_layers(student)
    vit = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3, "drop_path_rate": 0.5}
    refuse_layers(build_network("vit_tiny_patch16_224", 3, input_size=16, seed=0, options=vit))
