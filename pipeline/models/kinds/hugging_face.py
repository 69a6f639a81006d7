"""Builds image classifiers of Hugging Face's transformers: `hf/owner/name` on the hub, `hf/./folder` on this machine.

Needs the package `transformers` (`pip install "decant-kd[hf]"`). Nothing that a model brings is executed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError, did_you_mean, first_line
from pipeline.models.preprocessing import NEUTRAL, InputSize, PerChannel, Preprocessing, as_input_size
from pipeline.models.pretrained import refuse_unreachable
from pipeline.untrusted import parse_json, read_file

if TYPE_CHECKING:  # torch takes seconds
    from torch import Tensor, nn

    from pipeline.models.base import Network
    from pipeline.models.request import Request

PREFIX = "hf/"
CONFIG, IMAGES = "config.json", "preprocessor_config.json"
MOST_BYTES = 1 << 24
"""The most bytes of a model's description: thousands of names of classes fit."""

RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""What Pillow's numbers mean, which files of transformers have."""


def matches(model: str) -> bool:
    """Tell whether a name is of this kind."""
    return model.startswith(PREFIX) and not model.endswith(".onnx")


def reads(model: str) -> tuple[Path, ...]:
    """Return the folder that describes the model, if it is on this machine."""
    folder = _folder(model)
    return () if folder is None else (folder,)


def expects(model: str) -> Preprocessing:
    """Return what the model's weights expect, as its `preprocessor_config.json` says; `NEUTRAL` where it does not.

    Raises ModelError if there is no such model, or if that file cannot be read.
    """
    said = _said(model, IMAGES)
    mean_and_std = None if said is None else _normalisation(said)
    if said is None or mean_and_std is None:
        return NEUTRAL
    number: Any = said.get("resample")
    known = isinstance(number, int) and 0 <= number < len(RESAMPLING) and said.get("do_resize") is not False
    how = RESAMPLING[number] if known else "bilinear"
    unserved = None if how in ("bilinear", "bicubic") else how
    return Preprocessing(*mean_and_std, "bicubic" if how == "bicubic" else "bilinear", unserved)


def tells_normalisation(model: str) -> bool:
    """Tell whether the files of a model say how its images are normalised. Raises ModelError as `expects` does."""
    said = _said(model, IMAGES)
    return said is not None and _normalisation(said) is not None


def known_classes(model: str) -> tuple[str, ...]:
    """Return the names of the classes in a model's `config.json`, in order. Raises ModelError if it cannot be read."""
    names: Any = (_said(model, CONFIG) or {}).get("id2label")
    try:
        return tuple(str(name) for _, name in sorted((int(index), name) for index, name in names.items()))
    except (AttributeError, TypeError, ValueError):  # none, or a file that somebody wrote
        return ()


def _normalisation(said: Mapping[str, Any]) -> tuple[PerChannel, PerChannel] | None:
    """The mean and std that a `preprocessor_config.json` means; None if it does not say them."""
    try:
        factor = 255 * (float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0)
        shift = 1.0 if said.get("rescale_offset") else 0.0
        mean: PerChannel = (0.0, 0.0, 0.0)
        std: PerChannel = (1.0, 1.0, 1.0)
        if said.get("do_normalize", True):
            mean, std = (tuple(map(float, said[key])) for key in ("image_mean", "image_std"))
        # (255 f x - shift - m) / s with x in [0, 1]
        means = tuple(round((shift + value) / factor, 9) for value in mean)
        stds = tuple(round(value / factor, 9) for value in std)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (means, stds) if len(means) == len(stds) and min(stds, default=0.0) > 0 else None


def build(request: Request) -> Network:
    """Build the network of a request. Raises ModelError."""
    import torch

    from pipeline.models.request import Library, network_of

    config = _config(request)
    names = [str(name) for _, name in sorted((config.id2label or {}).items())]

    def create(classes: int) -> nn.Module:
        from transformers import AutoModelForImageClassification

        own = copy.deepcopy(config)
        own.num_labels = classes
        try:
            made: nn.Module = AutoModelForImageClassification.from_config(  # type: ignore[no-untyped-call]
                own, trust_remote_code=False, dtype=torch.float32
            )
        except Exception as error:  # a model that is no classifier of images, and whatever its layers raise
            raise ModelError(f"{request.model} cannot be built", got=f"{type(error).__name__}: {error}") from error
        if (_said(request.model, IMAGES) or {}).get("do_flip_channel_order"):
            made.register_forward_pre_hook(_blue_first)
        return made

    def pretrained() -> Mapping[str, Tensor]:
        from transformers import AutoModelForImageClassification

        place = str(_folder(request.model) or request.model.removeprefix(PREFIX))
        try:
            made, info = AutoModelForImageClassification.from_pretrained(
                place, output_loading_info=True, trust_remote_code=False, dtype=torch.float32
            )
        except Exception as error:
            raise ModelError(f"the weights of {request.model} cannot be read", got=first_line(error)) from error
        drawn = set(info["missing_keys"])  # which transformers draws, such as the classifier of a model without one
        return {name: tensor for name, tensor in made.state_dict().items() if name not in drawn}

    size = _size(request.model, config)
    return network_of(request, Library(create, size, pretrained, len(names) or None, names, renamed=_renamed))


def _renamed(model: Any, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights of a file under the names of the model: transformers writes some under older names."""
    import torch

    try:
        made, info = type(model).from_pretrained(
            None,
            config=model.config,
            state_dict=dict(weights),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception:  # of weights that are none of this model's: what does not fit is told by their own names
        return weights
    other = {each if isinstance(each, str) else each[0] for each in info["mismatched_keys"]}
    drawn = {*info["missing_keys"], *other}
    kept = {name: tensor for name, tensor in made.state_dict().items() if name not in drawn}
    as_they_are = {*info["unexpected_keys"], *other}
    return kept | {name: weights[name] for name in as_they_are if name in weights}


def _blue_first(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Turn the channels of a model's input around: MobileViT reads blue, green, red."""
    return (inputs[0].flip(1), *inputs[1:])


def _config(request: Request) -> Any:
    """The model's configuration, with the request's options. Raises ModelError."""
    said = _said(request.model, CONFIG)
    if said is None:
        raise ModelError(f"there is no model {request.model}", expected=f"{CONFIG}, as transformers writes it")
    try:
        from transformers import AutoConfig
    except ImportError:
        fix = 'pip install "decant-kd[hf]"'
        raise ModelError(f"{request.model} needs the package transformers", fix=fix) from None
    try:
        config = AutoConfig.for_model(**{"model_type": "", **said})
    except Exception as error:  # an unknown model_type, values that its class refuses
        what = f"{request.model} cannot be read"
        raise ModelError(what, where=CONFIG, got=first_line(error)) from None
    known = config.to_dict()
    for key, value in request.options.items():
        if key not in known or key in ("id2label", "label2id", "num_labels"):
            raise ModelError(
                f"{request.model} has no option {key!r}",
                where="options",
                expected="a key of its configuration; the number of classes comes from the data",
                fix=did_you_mean(key, known),
            )
        try:
            setattr(config, key, value)
        except Exception as error:  # a value of another type, which its class refuses
            what = f"{request.model} cannot have the option {key}={value!r}"
            raise ModelError(what, where=f"options.{key}", got=first_line(error)) from None
    return config


def _size(model: str, config: Any) -> InputSize:
    """The size of a model's input: its own, or that of the images it was trained with; else 224."""
    said = _said(model, IMAGES) or {}
    for size in (getattr(config, "image_size", None), said.get("crop_size"), said.get("size")):
        if isinstance(size, Mapping):
            size = [size["height"], size["width"]] if "height" in size else size.get("shortest_edge")
        if size:
            return as_input_size(size)
    return 224


def _said(model: str, file: str) -> Mapping[str, Any] | None:
    """The content of a JSON file of a model; None if it has no such file. Raises ModelError if it cannot be had."""
    folder = _folder(model)
    path: Path | None
    if folder is not None:
        path = folder / file
        if not folder.is_dir():
            raise ModelError(f"there is no folder {folder}", where=model, fix="name a folder that transformers wrote")
    else:
        place = model.removeprefix(PREFIX)
        refuse_unreachable(model, place, (CONFIG,))
        path = _downloaded(model, place, file)
    if path is None or not path.exists():
        return None
    try:
        content = parse_json(read_file(path, MOST_BYTES, follow=True))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} of {model} cannot be read", where=path, got=str(error)) from None
    return content if isinstance(content, Mapping) else {}


def _downloaded(model: str, place: str, file: str) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    name, _, revision = place.partition("@")
    try:
        return Path(huggingface_hub.hf_hub_download(name, file, revision=revision or None))
    except LocalEntryNotFoundError:
        return None  # it is not in the cache, and the hub cannot be asked
    except EntryNotFoundError:
        return None
    except Exception as error:  # the client has many errors
        raise ModelError(f"{model} cannot be had", got=first_line(error)) from None


def _folder(model: str) -> Path | None:
    """The folder of a model on this machine: what begins with a point or a slash; None of a model on the hub."""
    place = model.removeprefix(PREFIX)
    return Path(place) if place.startswith((".", "/", "~")) else None
