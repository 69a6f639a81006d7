"""Reads text embeddings of class names, which classify images by cosine: the head of CLIP-like teachers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.models.weights import digest_of, load_metadata, load_weights
from pipeline.untrusted import parse_json

CLIP_SCALE = 100.0
"""What cosines are multiplied by, unless the file has another `scale`: CLIP's own, after its training."""

FORM_HINT = "a .npy of float [K, D], or a safetensors file with a tensor `text` [K, D] and perhaps a number `scale`"


@dataclass(frozen=True)
class TextEmbeddings:
    """Holds an embedding of the name of every class.

    Args:
        text: float32 [K, D], of unit length.
        scale: of the logits, scale · cosine.
        names: of the classes, in this order; empty if the file does not name them.
    """

    text: Tensor
    scale: float = CLIP_SCALE
    names: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> TextEmbeddings:
        """Read a file: `.npy`, or safetensors whose metadata `names` is a JSON list. Raises ModelError for others.

        Args:
            path: of the file.
        """
        names: tuple[str, ...] = ()
        if not path.is_file():
            fix = "name the file in `teacher.text_head`; docs/label-free.md says how to make one"
            raise ModelError("there is no such file of text embeddings", where=path, expected=FORM_HINT, fix=fix)
        if path.suffix == ".npy":
            try:
                values = np.load(path, allow_pickle=False)
                tensors = {"text": torch.from_numpy(values.astype(np.float32, casting="same_kind"))}
            except (OSError, ValueError, TypeError, AttributeError) as error:  # AttributeError: of an archive
                raise ModelError("text embeddings cannot be read", where=path, expected=FORM_HINT, got=error) from None
        else:
            tensors, names = load_weights(path), _names(path)
        text, factor = tensors.get("text"), tensors.get("scale", torch.tensor(CLIP_SCALE))
        if text is None or text.ndim != 2 or not text.numel() or not text.is_floating_point():
            got = ", ".join(f"{name} {str(each.dtype)[6:]} {list(each.shape)}" for name, each in tensors.items())
            raise ModelError("the file does not hold text embeddings", where=path, expected=FORM_HINT, got=got)
        scale = float(factor) if factor.numel() == 1 else math.nan
        if not 0 < scale < math.inf:
            expected = "one number above 0, by which cosines are multiplied: CLIP's is 100"
            raise ModelError("the scale of the text embeddings is none", where=path, expected=expected, got=factor)
        wrong = ~(text.float().norm(dim=1) > 0) | ~text.isfinite().all(1)
        if bool(wrong.any()):
            what, row = "a text embedding has no direction", int(wrong.nonzero()[0])
            raise ModelError(what, where=f"{path}, row {row}", expected="finite numbers, not all of them 0")
        if names and len(names) != len(text):
            raise ModelError("names and text embeddings differ in number", where=path, got=[len(names), len(text)])
        return cls(F.normalize(text.float(), dim=1), scale, names)

    def require_classes(self, names: Sequence[str], where: Path) -> None:
        """Raise ModelError unless they are of the classes of a data set.

        Args:
            names: of those.
            where: for the error.
        """
        if len(self.text) != len(names):
            raise ModelError(
                "the text embeddings are not of the classes of the data",
                where=where,
                expected=f"{len(names)} rows, one for each class in the order of the labels",
                got=len(self.text),
            )
        if self.names and self.names != tuple(names):
            first = next(k for k in range(len(names)) if names[k] != self.names[k])
            raise ModelError(
                "the text embeddings are of other classes, or in another order",
                where=where,
                expected=f"{names[first]!r} as class {first}",
                got=repr(self.names[first]),
            )

    def digest(self) -> str:
        """Return `sha256:...` of text and scale."""
        return digest_of({"text": self.text, "scale": torch.tensor(self.scale)})


def _names(path: Path) -> tuple[str, ...]:
    said = load_metadata(path).get("names", "[]")
    try:
        names = parse_json(said.encode())
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        what, expected = "the names of the text embeddings cannot be read", "a JSON list of strings"
        raise ModelError(what, where=path, expected=expected, got=said[:80])
    return tuple(names)
