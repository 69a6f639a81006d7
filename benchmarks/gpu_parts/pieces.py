"""Makes what parts measure: made-up images, a teacher's cache of them, and students in training."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from gpu_parts.running import Place
from gpu_parts.sizes import Kind, Sizes
from pipeline.data import PackedDataset, Samples, open_source, pack
from pipeline.data.sources.image_folder import Options
from pipeline.experiment.networks import shapes_of
from pipeline.models import Network, build_network
from pipeline.models.device import choose_precision
from pipeline.objectives import Context, ObjectiveEntry, ObjectiveSet
from pipeline.progress import Silent
from pipeline.signals import FeaturesConfig, SignalsConfig
from pipeline.store.making.caching import make_cache
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches, Memory, Steps, TrainConfig
from pipeline.training.trainer import Trainer
from pipeline.views import Views, ViewsConfig, build_views

BLOCKS, VIEWS = ("block2", "block3"), 2
SEEN = 16
"""Random images that batch normalisation sees."""

NOISE = 8
"""Of photographs, in levels of a channel."""


class MadeUp:
    """A split of random images uint8 [N, S, S, 3], with labels."""

    name, file = "train", None

    def __init__(self, count: int, side: int, classes: int) -> None:
        random = np.random.default_rng(0)
        self.count, self.image_shape = count, (side, side, 3)
        self._images = random.integers(0, 256, (count, side, side, 3), np.uint8)
        self.labels = np.arange(count, dtype=np.int64) % classes

    @property
    def ids(self) -> tuple[str, ...]:
        """Their numbers."""
        return tuple(map(str, range(self.count)))

    def stored(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at some positions [B], uint8 [B, S, S, 3]."""
        return self._images[positions]

    def read(self, positions: NDArray[np.int64]) -> Tensor:
        """The images at some positions [B], uint8 [B, 3, S, S]."""
        return torch.from_numpy(self._images[positions]).permute(0, 3, 1, 2).contiguous()

    def digest_head(self, count: int) -> str:
        """The line that a digest begins with."""
        return "pixels uint8 " + " ".join(map(str, (count, *self.image_shape)))


def small_samples(sizes: Sizes, count: int | None = None) -> Samples:
    """Random images of the side that the teacher takes; all of them in memory."""
    samples = Samples(MadeUp(count or sizes.samples, sizes.teacher.size, sizes.classes))
    samples.resident(1 << 40)
    return samples


def small_views(sizes: Sizes) -> Views:
    """Those of the literature."""
    side = sizes.teacher.size
    operations = [{"name": "pad-crop", "padding": max(1, side // 8)}, {"name": "horizontal-flip"}]
    return build_views(ViewsConfig.model_validate({"count": VIEWS, "operations": operations}), (side, side))


def build(kind: Kind, classes: int, seed: int = 0) -> Network:
    """A network with random weights."""
    return build_network(kind.model, classes, input_size=kind.size, options=kind.options, seed=seed)


def calibrated(kind: Kind, classes: int) -> Network:
    """A network with random weights that computes as a trained one does outside of training.

    Its batch normalisation has seen some random images: without, the maps of a deep one exceed float16.
    """
    network = build(kind, classes)
    shape = (SEEN, 3, kind.size, kind.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    normalisations = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    momenta = [each.momentum for each in normalisations]
    for each in normalisations:
        each.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    for each, momentum in zip(normalisations, momenta, strict=True):
        each.momentum = momentum
    return network.eval()


def signals(sizes: Sizes) -> SignalsConfig:
    """What is kept of the teacher of small images."""
    return SignalsConfig(features=FeaturesConfig(blocks=BLOCKS, grid=sizes.grid))


def cache_of(place: Place, samples: Samples) -> TeacherCache:
    """The teacher's cache, which is made if no part made it before."""
    path, sizes = place.folder / "small.zarr", place.sizes
    if path.exists():
        return TeacherCache.open(path)
    make_cache(
        calibrated(sizes.teacher, sizes.classes),
        samples,
        small_views(sizes),
        signals(sizes),
        target=path,
        precision=choose_precision("auto", place.device),
        micro_batch=sizes.micro_batch,
        device=place.device,
        notify=lambda _: None,
    )
    return TeacherCache.open(path)


def photographs(place: Place) -> Samples:
    """Made-up photographs, packed as the JPEGs that they are; some of them several times."""
    sizes, path = place.sizes, place.folder / "photographs.h5"
    if not path.exists():
        folder = place.folder / "photographs" / "train"
        random = np.random.default_rng(0)
        files: list[bytes] = []
        for number in range(sizes.photographs):
            if number < 64:
                size = (
                    sizes.photograph if number else (sizes.photograph[0], sizes.photograph[1] - 2)
                )  # so that they differ
                files.append(_photograph(random, size))
            place_of = folder / str(number % sizes.classes) / f"{number}.jpg"
            place_of.parent.mkdir(parents=True, exist_ok=True)
            place_of.write_bytes(files[number % len(files)])
        options = Options(path=folder.parent)
        pack(open_source(options), path, Silent(), options=options)
    return Samples(PackedDataset.open(path).split("train"))


def _photograph(random: np.random.Generator, size: tuple[int, int]) -> bytes:
    coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
    pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)) + random.normal(0, NOISE, (size[1], size[0], 3))
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def photo_views(sizes: Sizes) -> Views:
    """Those of ImageNet."""
    operations = [{"name": "resized-crop", "size": sizes.crop}, {"name": "horizontal-flip"}]
    return build_views(ViewsConfig.model_validate({"count": VIEWS, "operations": operations}), None)


def entries(name: str, sizes: Sizes) -> list[ObjectiveEntry]:
    """An objective set by its name in `parts.SETS`."""
    hard, kd = {"name": "hard-label", "weight": 0.1}, {"name": "kd", "weight": 0.9}
    lfcc: dict[str, Any] = {"name": "lfcc"} | ({"width": sizes.width, "scales": [1, 2]} if sizes.width else {})
    crcd: dict[str, Any] = {"name": "crcd"} | ({"negatives": sizes.negatives} if sizes.negatives else {})
    sets = {"hard": [{"name": "hard-label"}], "kd": [hard, kd], "lfcc": [hard, kd, lfcc], "crcd": [hard, kd, crcd]}
    # QR and Cholesky in every step: whether they can be recorded, only a GPU can say.
    sets |= {name: [hard, {"name": name}] for name in ("vkd", "skd")}
    return [ObjectiveEntry.model_validate(entry) for entry in sets[name]]


@dataclass
class Run:
    """A student in training. source: what it reads of the teacher."""

    trainer: Trainer
    steps: Steps
    source: FromCaches


class Students:
    """Makes students that learn from one cache.

    Args:
        place: the cache is made there.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.samples = place, small_samples(place.sizes)
        self.cache = cache_of(place, self.samples)

    def run(self, kind: Kind, name: str, batch: int, seed: int = 0, **settings: Any) -> Run:
        """A student with the objective set `name`.

        Args:
            kind: the network.
            batch: views of a step.
            seed: of the network, the order and the random numbers.
            settings: of the training, such as `precision`.
        """
        sizes, source = self.place.sizes, FromCaches.of([(self.cache, self.cache.views)])
        network = build(kind, sizes.classes, seed)
        memory = Memory(source, self.samples.labels, sizes.classes)
        labels = torch.from_numpy(self.samples.labels)
        context = Context(self.samples.count, sizes.classes, labels, seed, memory.bank, memory.class_means)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            shapes = shapes_of(network)
            objectives = ObjectiveSet(name, entries(name, sizes), shapes, source.shapes, context)
        needs = objectives.needs
        network.keep_taps([each.removeprefix("features/") for each in needs.student if each.startswith("features/")])
        read = source.reading(needs.teacher - {"head"})
        values = {"epochs": 100, "batch_size": batch, "device": str(self.place.device), "workers": 0} | settings
        config = TrainConfig.model_validate(values)
        rows = source.primary.rows_per_block
        steps = Steps(self.samples, small_views(sizes), read, read.views, config, seed, rows)
        head = read.primary.head if "head" in needs.teacher else None
        return Run(Trainer(network, objectives, steps, seed, head), steps, read)


def weights(run: Run) -> dict[str, Tensor]:
    """A copy of all that training changes."""
    trainer = run.trainer
    states = {"network": trainer.network.state_dict(), "objectives": trainer.objectives.state_dict()}
    return {f"{of}.{name}": x.detach().clone() for of, state in states.items() for name, x in state.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether all is equal, bit by bit."""
    return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)


def _same(one: Tensor, other: Tensor) -> bool:
    return (
        one.shape == other.shape
        and one.cpu().contiguous().numpy().tobytes() == other.cpu().contiguous().numpy().tobytes()
    )
