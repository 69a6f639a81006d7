"""Runs a file of ONNX through onnxruntime: pixels in, signals out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import ModelError, did_you_mean, first_line
from pipeline.models.base import Network
from pipeline.models.hooks import MapForm, require_repeatable
from pipeline.models.kinds import name_in_identity
from pipeline.models.onnx_files import digest_of_files
from pipeline.models.preprocessing import InputSize, Interpolation, PerChannel
from pipeline.signals import Signals

ONNX_THREADS = 4
"""Of onnxruntime on a CPU, the same on every machine: results do not depend on how many cores it has."""

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class OnnxNetwork(Network):
    """Runs a file of ONNX as a teacher. It has no parameters, and gives no gradients.

    Args:
        file: it takes images [B, C, H, W], of any B or a fixed one.
        outputs: names of outputs that are maps; they are `block1`, `block2`, ...
        options: `logits` and `embedding`, names of outputs; the logits are by default the first output [B, K] that is
            not named otherwise.
        input_size: None is what the file says.
        headless: it has an embedding, and no logits.

    The other arguments are those of `Network`.

    Raises ModelError if onnxruntime is not here or cannot run the file, and for outputs that it does not have.
    """

    def __init__(
        self,
        file: Path,
        outputs: Sequence[str] = (),
        *,
        options: Mapping[str, Any],
        input_size: InputSize | None,
        mean: PerChannel,
        std: PerChannel,
        interpolation: Interpolation = "bilinear",
        headless: bool = False,
    ) -> None:
        file_digest = digest_of_files(file)
        session = _session(file, ["CPUExecutionProvider"])
        taken = list(session.get_inputs())
        shape = taken[0].shape if len(taken) == 1 else []
        if len(shape) != 4 or taken[0].type not in TYPES or (isinstance(shape[1], int) and shape[1] != len(mean)):
            raise ModelError(
                "the file does not take images as this network gives them",
                where=file,
                expected=f"one input [B, {len(mean)}, H, W] of floats",
                got=", ".join(f"{each.name} {each.type} {each.shape}" for each in taken),
                fix="export the model with its images normalised outside; `mean` has a value for each channel",
            )
        own = tuple(side for side in shape[2:] if isinstance(side, int))
        size = input_size or ((own[0] if own[0] == own[1] else (own[0], own[1])) if len(own) == 2 else 224)
        super().__init__(nn.Identity(), str(file), options, size, mean, std, interpolation)
        self.file, self.headless, self._digest = file, headless, file_digest
        self._input, self._type = taken[0].name, TYPES[taken[0].type]
        self._batch = shape[0] if isinstance(shape[0], int) else None
        self._sessions: dict[str, Any] = {"cpu": session}
        self.outputs = tuple(outputs)
        known = [each.name for each in session.get_outputs()]
        named = {key: str(value) for key, value in options.items()}
        for name in (*outputs, *named.values()):
            if name not in known:
                expected = "one of " + ", ".join(known)
                raise ModelError(
                    f"{file} has no output {name!r}", expected=expected, got=repr(name), fix=did_you_mean(name, known)
                )
        self._forms: dict[str, MapForm] = {}
        self.taps = self._probed(known, named)
        self._maps = self._kept = tuple(tap for tap in self.taps if tap.startswith("block"))
        self.num_classes = self.taps.get("logits", (0,))[0]

    def _probed(self, known: Sequence[str], named: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all taps: run the file once."""
        generator = torch.Generator().manual_seed(0)
        shape = (2, len(self.mean), *self.pixels.sides)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        pixels = self.pixels(images)
        values = self._run(pixels, known)
        taps: dict[str, tuple[int, ...]] = {}
        deepest: Tensor | None = None
        for number, name in enumerate(self.outputs, 1):
            form = MapForm.of(values[name], self.pixels.sides)
            if form is None:
                expected = "maps [B, C, H, W] or [B, H, W, C], or tokens [B, L, C]"
                got = f"a tensor {list(values[name].shape)}"
                raise ModelError("a block gives no map", where=f"{self.name}, {name}", expected=expected, got=got)
            self._forms[name] = form
            deepest = form.map(values[name])
            taps[f"block{number}"] = tuple(deepest.shape[1:])
        vectors = [name for name in known if values[name].ndim == 2]
        others = {named.get("embedding"), *self.outputs}
        self._logits = named.get("logits") or next((name for name in vectors if name not in others), None)
        self._embedding = named.get("embedding")
        if self.headless:
            self._embedding, self._logits = self._embedding or self._logits, None
        for each in (self._logits, self._embedding):
            if each is not None and each not in vectors:
                got = f"{each} {list(values[each].shape)}"
                raise ModelError("an output is no vector", where=self.name, expected="[B, K]", got=got)
        if self._logits is None and self._embedding is None:
            raise ModelError("the file gives no logits", where=self.name, expected="an output [B, K]", got=str(known))
        kept = self._logits or self._embedding
        assert kept is not None
        require_repeatable(lambda x: self._run(x, [kept])[kept], pixels, values[kept], self.name)
        if self._embedding is not None:
            taps["embedding"] = tuple(values[self._embedding].shape[1:])
        return taps if self._logits is None else taps | {"logits": tuple(values[self._logits].shape[1:])}

    def keep_classes(self, classes: Sequence[int]) -> None:
        """Leave the logits of some classes and no others.

        Args:
            classes: indices, in the order of the new ones.
        """
        self.classes, self.num_classes = tuple(classes), len(classes)
        self.taps = {**self.taps, "logits": (len(classes),)}

    def forward(self, images: Tensor) -> Signals:
        """Compute the signals of uint8 images [B, C, H, W], without gradients. Raises ModelError for other images."""
        paths = {tap: self.outputs[int(tap.removeprefix("block")) - 1] for tap in self._kept}
        wanted = [*paths.values(), *(name for name in (self._logits, self._embedding) if name is not None)]
        values = self._run(self.pixels(images), list(dict.fromkeys(wanted)))
        features = {tap: self._forms[name].map(values[name]) for tap, name in paths.items()}
        embedding = None if self._embedding is None else values[self._embedding]
        if self._logits is None:
            assert embedding is not None
            return Signals(embedding[:, :0], embedding, features)
        logits = values[self._logits]
        return Signals(logits if self.classes is None else logits[:, list(self.classes)], embedding, features)

    def map_of(self, images: Tensor, tap: str) -> Tensor:
        """Compute the map [B, C, H, W] of the block `tap`, of images as in `forward`."""
        name = self.outputs[self._maps.index(tap)]
        return self._forms[name].map(self._run(self.pixels(images), [name])[name])

    def identity(self) -> dict[str, Any]:
        """Return what the network is, apart from its file's content and place, as plain JSON."""
        return {**super().identity(), "model": name_in_identity(self.name), "blocks": list(self.outputs)}

    def weights_digest(self) -> str:
        """Return "sha256:..." of the file's bytes, and of the files that its weights lie in."""
        return self._digest

    def save(self, path: Path) -> None:
        """Refuse with ModelError: a file of ONNX is not trained, and so not saved.

        Args:
            path: has no effect.
        """
        raise ModelError("an ONNX file is run as it is, and not saved", where=self.file, fix="copy the file")

    def _run(self, pixels: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Outputs of the file by name, on the device of the pixels; of a file of one batch size, batch by batch."""
        device = pixels.device.type
        if device not in self._sessions:
            self._sessions[device] = _session(self.file, ["CUDAExecutionProvider", "CPUExecutionProvider"])
        array = np.ascontiguousarray(pixels.detach().float().cpu().numpy().astype(self._type))
        size = self._batch or len(array)
        pieces = []
        for start in range(0, len(array), size):
            piece = array[start : start + size]
            full = np.concatenate([piece, np.repeat(piece[-1:], size - len(piece), 0)])
            try:
                values = self._sessions[device].run(list(names), {self._input: full})
            except Exception as error:  # whatever the operations of the file raise
                what = f"{self.name} does not run on images of {self.input_size} pixels"
                raise ModelError(what, got=first_line(error), fix="set `input_size`") from None
            # A number for the whole batch, such as a loss, is no output of an image, and is not asked for.
            pieces.append([np.atleast_1d(value)[: len(piece)] for value in values])
        joined = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        return {
            name: torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32)).to(pixels.device)
            for name, value in zip(names, joined, strict=True)
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxNetwork:
        """Return the network itself: it has no state."""
        return self


def _session(file: Path, providers: Sequence[str]) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ModelError(f"{file} needs the package onnxruntime", fix='pip install "decant-kd[onnx]"') from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = ONNX_THREADS, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    here = [each for each in providers if each in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=here)
    except Exception as error:  # of a file that is damaged, or of another kind
        raise ModelError("the file is not one that onnxruntime runs", where=file, got=first_line(error)) from None
