"""Draws the parameters of the views of a data set, and renders their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import plugins
from pipeline.data.split import Images
from pipeline.data.threads import Threads
from pipeline.errors import ConfigError, DataError, Problem
from pipeline.views.chain import Chain
from pipeline.views.config import OPERATIONS, ViewsConfig
from pipeline.views.keyed_random import random_words
from pipeline.views.mixing import MixingOperation, Partners
from pipeline.views.operation import Operation, Size


class Views:
    """Draws and renders augmented views, the same every time. `build_views` makes it.

    Args:
        operations: in their order.
        image_size: height and width of all images; None if sizes differ.
        among: the positions of the samples, for views that mix them.

    Attributes:
        config: the section that they were built from.
        numbers: the view numbers, `range(first, first + count)`.
        parameter_names: of the P columns of parameters, `pad-crop.top`; where an operation occurs twice its
            columns begin with its place in the list, `2.pad-crop.top`. Where views mix, `mixup.partner` and the
            operation's own columns are followed by the partner's, `partner.pad-crop.top`.
        exact: the same pixels on every device, thread count and batch size.
        needs_sizes: `parameters` must be given the sizes of the images.
        output_size: height and width of a rendered view; None if the operations leave differing sizes.
        mixing: the name of the operation by which each view is mixed with another sample, its partner; None if none is.
    """

    def __init__(
        self,
        config: ViewsConfig,
        operations: Sequence[Operation | MixingOperation],
        image_size: Size | None,
        among: NDArray[np.int64] | None,
    ) -> None:
        self.config = config
        self.numbers = range(config.first, config.first + config.count)
        self.exact = all(operation.exact for operation in operations)
        self._chain = Chain.of(config.operations, operations, image_size)
        self._image_size = image_size
        self._threads = Threads()
        self._partners = Partners(config.seed, among) if self._chain.mix and among is not None else None
        self.needs_sizes = self._chain.needs_sizes
        self.output_size = self._chain.output_size
        self.parameter_names = self._chain.parameter_names
        self.mixing = self._chain.mixing

    @property
    def partners(self) -> Partners:
        """Return the partners of samples. Raises DataError if these views were built without their samples."""
        if self._partners is None:
            raise DataError(
                "these views mix samples and were built without any",
                where=self.mixing,
                fix="build them with the positions of the samples: build_views(config, size, among=samples.positions)",
            )
        return self._partners

    def parameters(
        self,
        view: int,
        samples: NDArray[np.int64],
        sizes: NDArray[np.int64] | None = None,
        partner_sizes: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int32]:
        """Draw view number `view` of the samples at these positions: int32 [B, P], reals as float32 bits.

        Parameters of a sample do not depend on the other samples. `sizes` [B, 2], heights and widths of the
        images, and `partner_sizes` of those they are mixed with, are needed only if `needs_sizes`: DataError without.
        """
        samples = np.asarray(samples, np.int64)
        chain, seed = self._chain, self.config.seed
        words = random_words(seed, view, samples, chain.words)
        before = chain.before.draw(words, self._known(sizes, len(samples)))
        if chain.mix is None:
            return before
        partners = self.partners.of(view, samples)
        theirs = before[:, :0]
        if chain.before.parameter_names:  # as they are drawn for the partner's own view of this number
            their_words = random_words(seed, view, partners, chain.words)
            theirs = chain.before.draw(their_words, self._known(partner_sizes, len(samples)))
        one_size = np.broadcast_to(np.array(chain.mix_size, np.int64), (len(samples), 2))
        mixed = chain.mix.draw(words[:, chain.before.words :][:, : chain.mix.words], one_size)
        after = chain.after.draw(words[:, chain.before.words + chain.mix.words :], one_size)
        return np.concatenate([before, partners[:, None].astype(np.int32), mixed, theirs, after], 1)

    def _known(self, sizes: NDArray[np.int64] | None, count: int) -> NDArray[np.int64] | None:
        """The sizes of `count` images; None if they are not given and make no difference."""
        if self._image_size is not None:
            return np.broadcast_to(np.array(self._image_size, np.int64), (count, 2))
        if sizes is None and self.needs_sizes:
            raise DataError(
                "these views cannot be drawn without the sizes of the images",
                where=", ".join(options.name for options in self.config.operations),
                fix="give `sizes`, and `partner_sizes` where views mix, or build the views for one image size",
            )
        return sizes

    def partners_in(self, parameters: NDArray[np.int32]) -> NDArray[np.int64] | None:
        """Return the positions int64 [B] of the samples that these views [B, P] are mixed with; None without mixing."""
        return parameters[:, len(self._chain.before.parameter_names)].astype(np.int64) if self._chain.mix else None

    def shares_in(self, parameters: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return how much of each of these views [B, P] is the sample's own, and its label: float32 [B], 0 to 1."""
        mix = self._chain.mix
        if mix is None:
            return np.ones(len(parameters), np.float32)
        assert self._chain.mix_size is not None
        return mix.shares(parameters[:, self._chain.mix_columns], self._chain.mix_size).astype(np.float32)

    def refuse_outside(self, parameters: NDArray[np.int32], size: Size) -> None:
        """Raise DataError if parameters [N, P] are not such as these operations draw for images of one size.

        Args:
            parameters: on the CPU; `apply` does not look at those that lie on a device.
            size: height and width of the images.
        """
        self._chain.refuse_outside(torch.from_numpy(parameters), size)

    def apply(self, images: Images, parameters: NDArray[np.int32] | Tensor, partners: Images | None = None) -> Tensor:
        """Render views: uint8 [B, C, H, W] on the images' device, from images and parameters [B, P].

        Args:
            partners: the images that they are mixed with, where they are.

        Images are not changed; without operations they are returned as they are. Raises DataError if the parameters are
        not such as these operations draw, or if sizes or channels differ at the end.
        """
        drawn = parameters if isinstance(parameters, Tensor) else torch.tensor(parameters)
        if drawn.shape != (len(images), len(self.parameter_names)):
            raise DataError(
                "these are not the parameters of these views",
                expected=f"{len(images)} views with {len(self.parameter_names)} parameters: "
                + (", ".join(self.parameter_names) or "none"),
                got=f"an array of shape {tuple(drawn.shape)}",
            )
        rendered = self._in_threads(images, drawn, partners) if isinstance(images, list) else None
        if rendered is not None:
            return rendered
        images = self._chain.apply(images, drawn, partners)
        if isinstance(images, Tensor):
            return images
        raise DataError(
            "images of differing shapes cannot make a batch",
            where=", ".join(options.name for options in self.config.operations) or "no operations",
            got=" and ".join("x".join(map(str, shape)) for shape in sorted({i.shape for i in images})[:2]),
            fix="add an operation that fixes the size: resize with [height, width], center-crop or resized-crop",
        )

    def _in_threads(self, images: list[Tensor], drawn: Tensor, partners: Images | None) -> Tensor | None:
        """Render a list of images in several threads; None where one thread is to do it, or to say what is wrong.

        The pixels of a view do not depend on the other images of a batch, which is cut into parts.
        """
        if not (self.exact and self.output_size and images and images[0].device.type == "cpu"):
            return None
        if min(torch.get_num_threads(), len(images)) <= 1:
            return None
        with torch.inference_mode(False):  # which is of a thread: others could not write there
            rendered = torch.empty((len(images), images[0].shape[0], *self.output_size), dtype=torch.uint8)

        def render(part: slice) -> None:
            views = self._chain.apply(images[part], drawn[part], None if partners is None else partners[part])
            if not isinstance(views, Tensor) or views.shape[1:] != rendered.shape[1:]:
                raise ValueError("images of differing shapes")
            rendered[part] = views

        try:
            self._threads.map(render, len(images))
        except Exception:
            return None
        return rendered

    def identity(self) -> dict[str, Any]:
        """Return what decides the pixels of a view of a given number, as plain JSON values."""
        config = self.config.model_dump(mode="json")
        drawn = {"operations": config["operations"], "seed": config["seed"]}
        return drawn | ({"partners": self.partners.digest()} if self.mixing else {})


def build_views(
    config: ViewsConfig,
    image_size: Size | None = None,
    key: str = "views",
    among: NDArray[np.int64] | None = None,
) -> Views:
    """Make the views of images of `image_size` (H, W); None if their sizes differ or are not known yet.

    Args:
        config: the section.
        among: the positions of the samples, ascending, for views that mix them.

    Raises ConfigError, at keys below `key`, if the operations cannot work on such images.
    """
    built = []
    for i, options in enumerate(config.operations):
        module = plugins.load(OPERATIONS, options.name, f"{key}.operations.{i}.name")
        built.append(module.build(options))
    try:
        views = Views(config, built, image_size, among)
    except ConfigError as error:
        raise ConfigError([problem.below(key) for problem in error.problems]) from None
    if views.mixing is not None and among is not None and len(among) < 2:
        what, fix = f"{views.mixing} mixes each image with another one", "take more samples, or leave it out"
        raise ConfigError([Problem(f"{key}.operations", what, "two samples or more", f"{len(among)}", fix)])
    return views


def sizes_of(images: Images) -> NDArray[np.int64]:
    """Return height and width of each image: int64 [B, 2].

    Args:
        images: one tensor, or one for each image.
    """
    return np.array([tuple(image.shape[-2:]) for image in images], np.int64).reshape(-1, 2)
