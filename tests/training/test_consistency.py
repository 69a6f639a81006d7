"""Training from a cache is training with the teacher: the same pixels, the same outputs, the same student."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from training_pieces import HARD, KD, LFCC, SMALL, VIT, cache, network, objectives, same, samples, steps, views

from pipeline.models import Network, build_network
from pipeline.objectives import Batch
from pipeline.progress import Silent
from pipeline.signals import FeaturesConfig, LinearHead, LogitsConfig, SignalsConfig
from pipeline.signals.config import EmbeddingConfig
from pipeline.store.format.encoded import EncodedSignals
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.reader import TeacherCache
from pipeline.training import train
from pipeline.training.loading import loader
from pipeline.training.teacher_outputs import Upcoming
from pipeline.training.trainer import Trainer

ENTRIES = (HARD, KD, LFCC)
SIGNALS = SignalsConfig(
    logits=LogitsConfig(encoding="float32"),
    embedding=EmbeddingConfig(encoding="float32"),
    features=FeaturesConfig(blocks=("block2", "block3"), grid=2, encoding="float32"),
)


def teacher(road: Path) -> Network:
    return build_network("cifar_resnet8", 4, weights=road / "artifacts/teacher/teacher.safetensors", input_size=8)


class Live:
    """The teacher in the loop: it is run at every step, in the micro-batches of stage one."""

    def __init__(self, road: Path, stored: TeacherCache) -> None:
        self.layout = stored.manifest.layout
        self.runs = 0
        self.samples, self.views = samples(road), views()
        self.teacher = TeacherPass(
            teacher(road),
            self.samples,
            self.views,
            SIGNALS,
            device=torch.device("cpu"),
            precision="float32",
            micro_batch=16,
        )

    remote = False

    def expect(self, upcoming: Upcoming) -> None:
        """Nothing to do."""

    def parameters(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Drawn again."""
        return self.views.parameters(view, self.samples.positions[rows])

    def teacher_outputs(self, view: int, rows: NDArray[np.int64], images: Tensor) -> EncodedSignals:
        """Asked again, whole micro-batches for the rows that are wanted."""
        names = [spec.name for spec in self.layout.signals]
        everything: dict[str, NDArray[Any]] = {}
        with self.teacher.inference_mode():
            for batch in {self._micro_batch(int(row)) for row in rows}:
                outputs = self.teacher.infer(self.teacher.render(view, batch), names).arrays()
                self.runs += 1
                for spec in self.layout.signals:
                    for part, array in spec.codec.encode(outputs[spec.name]).items():
                        name = spec.arrays[part]
                        whole = np.full((self.samples.count, *array.shape[1:]), np.nan, array.dtype)
                        everything.setdefault(name, whole)[batch.start : batch.stop] = array
        return EncodedSignals(self.layout.signals, {k: torch.from_numpy(v[rows]) for k, v in everything.items()})

    def _micro_batch(self, row: int) -> range:
        rows, size = self.layout.rows, self.teacher.micro_batch
        block = row // rows * rows
        start = block + (row - block) // size * size
        return range(start, min(start + size, block + rows, self.samples.count))


@pytest.mark.parametrize(
    ("kind", "together"),
    [(SMALL, {}), (VIT, {}), (SMALL, {"views_per_step": 2, "epochs": 2})],
    ids=["small", "vit", "two views of each sample"],
)
def test_students_from_the_cache_and_from_the_live_teacher_are_identical(
    road: Path, kind: Any, together: dict[str, int]
):
    """The issue that a cache must not have: 12 steps, bit for bit."""
    stored = cache(road)
    live = Live(road, stored)
    found = []
    for source in (None, live):
        student = network(kind)
        run = steps(road, source, **({"epochs": 4, "batch_size": 16, "learning_rate": 0.02} | together))
        train(student, objectives(student, *ENTRIES), run, seed=0, folder=None, progress=Silent(), head=stored.head)
        found.append(student.model.state_dict())
    assert live.runs > 20
    assert same(*found)
    assert not same(found[0], network(kind).model.state_dict())


def test_caches_of_other_views_would_end_elsewhere(road: Path):
    """What the test above can see: one view number off, and the weights differ."""
    found = []
    for offset in (0, 1):
        student = network()
        run = steps(road, epochs=2, view_offset=offset)
        train(student, objectives(student, *ENTRIES), run, seed=0, folder=None, progress=Silent())
        found.append(student.model.state_dict())
    assert not same(*found)


@pytest.mark.parametrize("kind", [SMALL, VIT], ids=["small", "vit"])
def test_terms_agree_at_every_step_whatever_the_batch_in_which_the_live_teacher_sees_them(road: Path, kind: Any):
    """From the weights that a student has at each of 18 steps: batches of 1 to 48 samples, in any order."""
    stored, data, rendering = cache(road), samples(road), views()
    student, big = network(kind), teacher(road).eval()
    run = steps(road, epochs=6, batch_size=16, learning_rate=0.02)
    trainer = Trainer(student, objectives(student, *ENTRIES), run, 0, stored.head)
    live = TeacherPass(big, data, rendering, SIGNALS, device=torch.device("cpu"), precision="float32", micro_batch=16)
    chance = np.random.default_rng(0)
    assert data.labels is not None
    for number, step in enumerate(itertools.islice(loader(run, 0, torch.device("cpu")), len(run))):
        view, index = number % 2, chance.permutation(data.count)[: 1 + number * 47 // 17]
        batch = Batch(torch.from_numpy(data.labels[index]), torch.from_numpy(index), torch.full((len(index),), view))
        student.eval()
        trainer.objectives.eval()
        with torch.inference_mode():
            images = rendering.apply(data.read(index), stored.view_parameters(view, index))
            own = student(images)
            one = trainer.objectives(own, stored.read(view, index), batch, 0.5).terms
            other = trainer.objectives(own, live.signals(images), batch, 0.5).terms
        assert len(one) == 3
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-5)
        trainer.update(step)
    assert number == 17
    assert len(index) == data.count


def test_the_stored_head_is_the_teachers(road: Path):
    head = cache(road).head
    assert isinstance(head, LinearHead)
    classifier = teacher(road).model.get_classifier()
    assert torch.equal(head.weight, classifier.weight)
    assert torch.equal(head.bias, classifier.bias)
    assert head.linear
