"""Gives the views of a cache with the teacher's outputs, as a data set for torch."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.api.arguments import arguments_of, in_python, one_or_more, refuse_labels_beyond
from pipeline.api.cache_sets import CacheSet, Paths, path_list
from pipeline.api.caching import LABELS_HINT, require_network
from pipeline.api.dataset import AnyDataset, samples_of
from pipeline.api.epochs import Epochs
from pipeline.api.named_teachers import reading
from pipeline.api.view_lists import ViewList, as_views
from pipeline.config import problems_of
from pipeline.data import Samples
from pipeline.data.kept_digests import forget_digests
from pipeline.errors import ArgumentError, Problem, unknown_name
from pipeline.experiment.data import views_of
from pipeline.models import TeacherNetwork
from pipeline.models.device import choose_device
from pipeline.objectives import MixedLabels, Neighbours
from pipeline.progress import Lines, Silent
from pipeline.signals import Mean
from pipeline.store.format.requirements import CacheRequirement, RequiredSamples
from pipeline.store.format.sections import DataIdentity, TeacherIdentity, ViewsIdentity
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches, Steps, TrainConfig, Verify, check_views
from pipeline.training.encoded_outputs import join_batches
from pipeline.training.neighbourhood import Neighbourhood
from pipeline.training.step import Step

OWN_LOADER = -1
"""The number of a step in a loop or a loader that is not of `CachedViews.loader`."""


class CachedViews(Dataset[Step]):
    """Gives augmented views with the teacher's outputs, read from a cache.

    Before anything else the images are compared with those that the teacher saw: a changed image, another number of
    images and other operations are refused, by name.

    A batch has `images`, uint8 [B, C, H, W]; `labels`, `sample` (the number in the data set) and `view`, int64 [B];
    `teacher_outputs`, as they are stored; `mixed`, the labels and shares of what is mixed in, where views mix; and
    `index`, the number of the step. `batch.to(device)` moves it. Item `i` of the data set is a batch of one: view
    `i // N` of sample `i % N`, N samples. A DataLoader of your own works with `collate_fn=data.collate`; `loader`
    reads in an order that suits the cache, and gives every epoch each sample once, in the next of its views.

    Args:
        path: of the cache; or a list, of several caches of one teacher, such as more views that were cached later.
        dataset: the same that the cache was made of.
        views: what the cache must have, if it is to be compared: what `make_views` returns, or a list of operations.
        teacher: the network that the cache must be of, if weights and identity are to be compared.
        name: of the cache's teacher, if objectives are to name it.
        teachers: paths of the caches of other teachers, by the names by which objectives ask for them. They must be of
            the same images and views. The teacher of `path` is the one that objectives read which name none.
        ensemble: paths of the caches of other teachers, whose logits are combined with those of the first. All other
            signals are the first one's, and there is no head.
        mean: of the logits of an ensemble, `mean-logits`, or of its probabilities, `mean-probabilities`.
        verify: `full` renders all views and compares their digests, a thousand of each where that would take over a
            minute; `sample` does that only and does not read every image; `bytes` compares images, not views (for
            JPEG files and another version of the decoder); `none` takes all on trust.
        progress: whether to print what is checked.

    Raises:
        CacheMismatch: every difference between the cache and what was requested.
        CacheNotFound, CacheUnfinished, CacheCorrupt: there is no cache that can be read.
        ConfigError, DataError: arguments that cannot be used; labels beyond the teacher's classes.

    Example:
        >>> data = CachedViews("cache.zarr", photos, progress=False)  # doctest: +SKIP
        >>> batch = next(iter(data.loader(batch_size=4)))  # doctest: +SKIP
        >>> batch.images.shape, batch.teacher_outputs.decode().logits.shape  # doctest: +SKIP
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 4]))
    """

    def __init__(
        self,
        path: Paths,
        dataset: AnyDataset,
        *,
        views: ViewList | None = None,
        teacher: TeacherNetwork | None = None,
        name: str | None = None,
        teachers: Mapping[str, Paths] | None = None,
        ensemble: Paths = (),
        mean: Mean = "mean-logits",
        verify: Verify = "full",
        progress: bool = True,
    ) -> None:
        if verify not in get_args(Verify):
            raise ArgumentError([unknown_name("verify", str(verify), get_args(Verify))], "CachedViews")
        if not (paths := path_list(path)):
            raise ArgumentError([Problem("path", "names no cache")], "CachedViews")
        caches = CacheSet(paths[1:], path_list(ensemble), mean, name, teachers or {})
        self.samples = samples_of(dataset)
        self.cache = TeacherCache.open(paths[0])
        identity = self.cache.manifest.identity
        trusting = verify in ("sample", "none")
        if verify == "bytes" and self.samples.split.file is not None:
            forget_digests(self.samples.split.file)
        here = RequiredSamples.of(self.samples) if trusting else DataIdentity.of(self.samples)
        self.cache.require(CacheRequirement(data=here))
        self.views = views_of(self.samples, identity.views.config(), "views")
        with arguments_of("CachedViews"):
            requested = self.views if views is None else views_of(self.samples, as_views(views), "views")
        described = None
        if teacher is not None:
            network, own = require_network(teacher, "the teacher"), identity.teacher
            described = TeacherIdentity.of(network, precision=own.precision, micro_batch=own.micro_batch)
        drawn = ViewsIdentity.of(requested)
        numbers = None if views is None else requested.numbers
        alone = numbers if len(paths) == 1 else None  # of several, all together have the views
        self.cache.require(CacheRequirement(views=drawn, numbers=alone, teacher=described))
        self.source = caches.opened(self.cache, CacheRequirement(data=here, views=drawn, numbers=numbers))
        refuse_labels_beyond(self.samples.labels, self.source.shapes.logits, "the teacher", LABELS_HINT)
        self._made: dict[tuple[Any, ...], Epochs] = {}
        self._asked_for: Neighbours | None = None
        every = len(self.source.views)
        self._steps_for_items = self._steps(self.source, every, every, seed=0, balanced=False)
        checked = check_views(self._steps_for_items, self.source, verify, Lines() if progress else Silent())
        if progress:
            print(f"{', '.join(paths)}: {checked}")

    @property
    def training(self) -> Samples:
        """Return the samples to learn from: all of the data set."""
        return self.samples

    @property
    def classes(self) -> int:
        """Return K, the number of classes that the teacher tells apart; without its logits, that labels tell apart."""
        labels = self.samples.labels
        return self.source.shapes.logits or (0 if labels is None else int(labels.max()) + 1)

    def loader(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        workers: int = 0,
        views: int = 1,
        signals: str | Collection[str] | None = None,
        balanced: bool = False,
        pin_memory: bool | None = None,
        epoch: int | None = None,
        neighbours: Neighbours | None = None,
    ) -> DataLoader[Step]:
        """Return a DataLoader: every time that it is iterated it gives the next epoch, in an order of its own.

        Batch `i` of epoch `e` depends on nothing but seed and numbers. Batches differ by one sample at most, and none
        is left out.

        A loader that is made in every epoch anew does the same: it begins with the epoch after the last one of the
        loader that was made before it with the same batch_size, seed, workers, views, signals and balanced.
        `objective(..., data)` begins a training: loaders that are made after it begin with epoch 0.

        Args:
            batch_size: the most views in a batch.
            seed: of the order.
            workers: processes that read and render images. With 0 this process does, fastest for small images.
            views: of each sample in a batch, in adjacent rows; some objectives need two.
            signals: of the teacher, to read, such as `loss.reads`, of another one `siglip:embedding`; None for all.
            balanced: whether every class comes equally often.
            pin_memory: None where there is a GPU.
            epoch: to begin with, after a restart for example; None goes on as said above.
            neighbours: that samples have in their batch, such as `loss.neighbours`; None for none. They are found in
                the cache at the first time, which compares all pairs of samples, and kept beside it.

        Raises:
            ConfigError: more views than there are, classes to balance and no labels, workers and a cache on object
                storage.

        Example:
            >>> loader = data.loader(batch_size=256, seed=0, signals=loss.reads)  # doctest: +SKIP
        """
        read = None if signals is None else frozenset(one_or_more(signals))
        source = self.source if read is None else reading(self.source, read)
        if workers and source.remote:
            fix = "use workers=0: chunks are fetched ahead by threads"
            what = "a cache on object storage is read by this process alone"
            raise ArgumentError([Problem("workers", what, fix=fix)], "the loader")
        if epoch is not None and epoch < 0:
            raise ArgumentError([Problem("epoch", "is no number from 0 on", got=repr(epoch))], "the loader")
        steps = self._steps(source, batch_size, views, seed, balanced)
        if neighbours is not None:
            steps.neighbourhood = self._neighbourhood(neighbours)
        elif self._asked_for is not None:
            what = "the loss asks for neighbours of every sample in its batches, and this loader gives none"
            warnings.warn(f"{what}: data.loader(..., neighbours=loss.neighbours)", stacklevel=2)
        settings = batch_size, seed, workers, views, read, balanced, neighbours
        before = self._made.get(settings)
        first = epoch if epoch is not None else before.epoch if before else 0
        self._made[settings] = Epochs(steps.steps_per_epoch, first)
        return DataLoader(
            steps,
            batch_sampler=self._made[settings],
            collate_fn=_only,
            num_workers=workers,
            pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
            prefetch_factor=4 if workers else None,
        )

    def begin_training(self, neighbours: Neighbours | None = None) -> None:
        """Let loaders that are made from now on begin with epoch 0. `objective` calls it.

        Args:
            neighbours: that the loss asks for: a loader without them warns.
        """
        self._asked_for = neighbours
        self._made.clear()

    def _neighbourhood(self, wanted: Neighbours) -> Neighbourhood:
        """Return the nearest samples of each, which are found now: not by every process of a loader."""
        with arguments_of("the loader"):
            found = Neighbourhood(self.source, wanted, choose_device("auto"))
        found.nearest  # noqa: B018
        return found

    def _steps(self, source: FromCaches, batch_size: int, views: int, seed: int, balanced: bool) -> Steps:
        sampling: Literal["balanced", "shuffled"] = "balanced" if balanced else "shuffled"
        rows = source.primary.rows_per_block
        try:
            config = TrainConfig(epochs=1, batch_size=batch_size, views_per_step=views, sampling=sampling)
            with arguments_of("the loader"):
                return Steps(self.samples, self.views, source, source.views, config, seed, rows)
        except ValidationError as error:
            found = [replace(p, key=in_python(p.key)) for p in problems_of(error, "train")]
            raise ArgumentError(found, "the loader") from None

    def __len__(self) -> int:
        return self.samples.count * len(self.source.views)

    def __getitem__(self, index: int) -> Step:
        if not -len(self) <= index < len(self):
            raise IndexError(f"items are 0..{len(self) - 1}: {index}")
        return self.__getitems__([index % len(self)])

    def __getitems__(self, indices: Sequence[int]) -> Step:
        """Return the items with these numbers as one batch, in this order; a DataLoader calls it."""
        which, rows = np.divmod(np.asarray(indices, np.int64), self.samples.count)
        order = np.argsort(which, kind="stable")
        parts = [self._view(int(each), rows[which == each]) for each in np.unique(which)]
        return _in_order(parts, torch.from_numpy(np.argsort(order)))

    def _view(self, which: int, rows: NDArray[np.int64]) -> Step:
        """Return one view of some samples as a batch."""
        number = self.source.views[which]
        parameters, images = self._steps_for_items.render(number, rows)
        labels, samples = torch.from_numpy(self._steps_for_items.labels[rows]), torch.from_numpy(rows)
        outputs = self.source.teacher_outputs(number, rows, images)
        mixed = self._steps_for_items.mixed_labels([parameters])
        return Step(OWN_LOADER, images, labels, samples, torch.full_like(samples, number), outputs, mixed)

    @staticmethod
    def collate(batch: Step) -> Step:
        """Return a batch as it is: for a DataLoader of your own, `collate_fn=data.collate`."""
        return batch


def _only(steps: Sequence[Step]) -> Step:
    """Return the one step of a batch of steps."""
    (step,) = steps
    return step


def _in_order(parts: Sequence[Step], order: Tensor) -> Step:
    """Join several batches. order: of the rows of all parts in the result."""
    if len(parts) == 1:
        return parts[0]
    images, labels, sample, view = (
        torch.cat(list(each))[order]
        for each in zip(*((part.images, part.labels, part.sample, part.view) for part in parts), strict=True)
    )
    outputs = join_batches([part.teacher_outputs for part in parts if part.teacher_outputs is not None], order)
    mixed = None
    if every := [part.mixed for part in parts if part.mixed is not None]:
        others, shares = torch.cat([each.labels for each in every]), torch.cat([each.share for each in every])
        mixed = MixedLabels(others[order], shares[order])
    return Step(parts[0].index, images, labels, sample, view, outputs, mixed)
