"""Turns image files into the pixels that a student's evaluation would see of them, once they were packed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.images import as_rgb, decode_image, readable_suffixes
from pipeline.data.source import Item, Unreadable
from pipeline.data.treatment import Treatment
from pipeline.errors import DataError
from pipeline.experiment.model_file import ModelInput
from pipeline.untrusted import read_file
from pipeline.views import ViewsConfig, build_views, sizes_of
from pipeline.views.shrinking import shrink

MOST_PHOTO_BYTES = 1 << 30


def photographs(paths: Iterable[Path]) -> list[Path]:
    """Return the image files that paths name, those below folders in the order of their names.

    Args:
        paths: files and folders.

    A file is taken whatever its suffix is. Raises DataError for a folder without any image.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        suffixes = readable_suffixes()
        below = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
        shown = [file for file in below if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        if not shown:
            fix = "name a folder with images, or the files themselves"
            raise DataError("the folder has no images", where=path, expected=", ".join(sorted(suffixes)), fix=fix)
        found += shown
    return found


class PhotoReader:
    """Reads image files as `prepare-data` packs them, and makes the one view that evaluation sees.

    Args:
        seen: what the student's `model.json` says of its input.
    """

    def __init__(self, seen: ModelInput) -> None:
        self._seen = seen
        raw = shrink if seen.store == "raw" else None
        self._treatment = Treatment(seen.decoding, seen.shorter_side, seen.quality, raw)
        config = ViewsConfig.model_validate({"operations": [dict(options) for options in seen.operations]})
        self._views = build_views(config, key="evaluate")

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Return the image uint8 [H, W, C] of a file, as a packed data set would give it.

        Args:
            path: of the file.

        Raises DataError, which says why, if it cannot be read.
        """
        try:
            encoded = read_file(path, MOST_PHOTO_BYTES, follow=True)
        except OSError as error:
            raise DataError("the image cannot be read", where=path, got=error.strerror or str(error)) from None
        item = Item(encoded, None, "photo")
        treated = self._treatment(item, self._seen.stored == "files")
        if not isinstance(treated, Unreadable) and treated.small:  # where one is made smaller, all are files
            treated = self._treatment(item, True)
        if isinstance(treated, Unreadable):
            raise DataError("the image cannot be read", where=path, got=treated.reason)
        content = treated.content
        pixels = decode_image(content, self._seen.decoding).pixels if isinstance(content, bytes) else content
        return as_rgb(pixels) if self._seen.channels == 3 else pixels

    def view(self, image: NDArray[np.uint8]) -> Tensor:
        """Return what the network is given of an image: uint8 [1, C, h, w].

        Args:
            image: uint8 [H, W, C].
        """
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        drawn = self._views.parameters(self._views.numbers[0], np.zeros(1, np.int64), sizes_of(pixels))
        return self._views.apply(pixels, drawn)
