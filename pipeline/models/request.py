"""Says what network is to be built, in a form that every kind of model understands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError, did_you_mean
from pipeline.models.config import Match
from pipeline.models.fit import NEW_CLASSIFIER_HINT, fit_weights
from pipeline.models.module_network import ModuleNetwork
from pipeline.models.preprocessing import InputSize, Interpolation, PerChannel
from pipeline.models.weights import keeps_order, load_weights

Weights = Path | Literal["pretrained"]
"""A file, or the weights that the library has of the model."""


@dataclass(frozen=True)
class Request:
    """Says what network is to be built. The fields are those of `build_network`, with nothing left open but the size.

    Args:
        blocks, head: paths of modules inside the model; None finds them.
        classes: those of the model's own that are kept, as names or indices; None keeps all.
        any_classes: `num_classes` is a guess, since there is no data yet.
    """

    model: str
    num_classes: int
    weights: Weights | None
    start: Weights | None
    input_size: InputSize | None
    mean: PerChannel
    std: PerChannel
    interpolation: Interpolation
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    match: Match = "names"
    offline: bool = False
    blocks: Sequence[str] | None = None
    head: str | None = None
    classes: Sequence[int | str] | None = None
    any_classes: bool = False


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Let torch's global generator draw from a seed inside, and be as it was afterwards. None leaves it alone."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Library:
    """Says how a library builds the model of a request.

    Args:
        create: builds the module for so many classes, with random weights.
        pretrained: reads the library's own weights of it; None if there are none.
        classes: how many they tell apart, where that is known without reading them.
        names: of these classes, in order; empty where they are not known.
        size: of the input, if none is named.
        fixed: whether the module takes no number of classes.
        renamed: gives the weights of a file the module's names; None if the library writes them under those.
    """

    create: Callable[[int], nn.Module]
    size: InputSize
    pretrained: Callable[[], Mapping[str, Tensor]] | None = None
    classes: int | None = None
    names: Sequence[str] = ()
    fixed: bool = False
    renamed: Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None


def network_of(request: Request, library: Library) -> ModuleNetwork:
    """Build the network of a request from a library's module, with its weights. Raises ModelError."""
    begun = request.weights or request.start
    if begun == "pretrained" and library.pretrained is None:
        raise ModelError(f"there are no weights of {request.model}", fix="name a weights file in place of `pretrained`")
    differ = library.classes is not None and library.classes != request.num_classes
    if request.weights == "pretrained" and request.classes is None and request.num_classes and differ:
        raise ModelError(
            f"the classifier of the weights of {request.model} is not for the classes of the data",
            expected=f"{request.num_classes} classes",
            got=f"{library.classes}",
            fix=f"{NEW_CLASSIFIER_HINT}; of a teacher that knows them, choose classes by `teacher.classes`",
        )
    weights = _weights(request, library)
    count = request.num_classes if request.classes is None else _own_classes(request, library, weights)
    spare = not count and not library.fixed  # a classifier is built, and taken off again
    with seeded(request.seed):
        module = library.create(2 if spare else count)
    network = adapted(module, request, library.size, headless=not count and library.fixed)
    if count and network.num_classes != count and not request.any_classes:
        raise ModelError(
            f"{request.model} has logits of other classes than the data",
            expected=f"{count} classes",
            got=f"{network.num_classes}",
            fix="let the factory take `num_classes`, or choose classes of a teacher by `teacher.classes`",
        )
    if weights is not None:
        path = begun if isinstance(begun, Path) else None
        if path and library.renamed is not None and not weights.keys() <= module.state_dict().keys():
            weights = library.renamed(module, weights)
        network.kept = fit_weights(
            module,
            weights,
            path or f"the weights of {request.model}",
            request.match,
            new_classifier=spare or request.weights is None,
            ordered=keeps_order(path) if path else True,
            classifier=tuple(f"{network.head}.{name}" for name in ("weight", "bias")) if network.head else (),
        )
    if request.classes is not None:
        own = network.num_classes
        chosen = class_indices(request.model, request.classes, library.names, request.num_classes, own)
        network.keep_classes(chosen)
    if spare:
        network.remove_classifier()
    return network


def adapted(module: nn.Module, request: Request, size: InputSize, *, headless: bool = False) -> ModuleNetwork:
    """Return the network of a module as a request describes it.

    Args:
        size: of the input, if none is named.
        headless: whether the module returns embeddings, and no logits.

    Raises ModelError if the module does not run on such images, or has no such blocks.
    """
    size = request.input_size or size
    try:
        return ModuleNetwork(
            module,
            request.blocks,
            input_size=size,
            mean=request.mean,
            std=request.std,
            interpolation=request.interpolation,
            head=request.head or "auto",
            name=request.model,
            options=request.options,
            headless=headless,
        )
    except ModelError:
        raise
    except Exception as error:  # whatever a module raises on images that it was not made for
        channels = len(request.mean)
        fix = "set `input_size`, and the option of the model that says the size of its images, if it has one"
        if channels != 3:
            fix = "name `mean` and `std` of three channels, or the option by which the model takes others; or " + fix
        raise ModelError(
            f"{request.model} does not run on images of {size} pixels"
            + (f" and {channels} channels" if channels != 3 else ""),
            got=f"{type(error).__name__}: {error}",
            fix=fix,
        ) from error


def _weights(request: Request, library: Library) -> Mapping[str, Tensor] | None:
    begun = request.weights or request.start
    if isinstance(begun, Path):
        return load_weights(begun)
    if begun is None or request.offline or library.pretrained is None:
        return None
    return library.pretrained()


def _own_classes(request: Request, library: Library, weights: Mapping[str, Tensor] | None) -> int:
    """How many classes the model has before some are chosen: by its library, or by the classifier in its weights."""
    if request.weights == "pretrained" and library.classes is not None:
        return library.classes
    if weights is not None:
        with seeded(0):
            network = adapted(library.create(2), request, library.size)
        if network.head and f"{network.head}.weight" in weights:
            return len(weights[f"{network.head}.weight"])
    return max((index for index in request.classes or () if isinstance(index, int)), default=0) + 1


def options_text(options: Mapping[str, Any]) -> str | None:
    """Return the options of a model as an error says them; None without any."""
    return "options: " + ", ".join(f"{key}={value!r}" for key, value in options.items()) if options else None


def class_indices(model: str, chosen: Sequence[int | str], names: Sequence[str], wanted: int, count: int) -> list[int]:
    """Return the indices of the classes of a model that are chosen, in the order of the data's.

    Args:
        model: its name.
        chosen: names or indices.
        names: of the model's classes.
        wanted: how many classes the data has.
        count: how many the model has.

    Raises ModelError for classes that the model does not have, for one that is chosen twice, and where they are not as
    many as the data's.
    """
    found = [names.index(each) if each in names else each for each in chosen]
    indices = []
    for each in found:
        if not isinstance(each, int) or not 0 <= each < count:
            also = ", or the name of a class" if names else "; the names of its classes are not known"
            what, fix = f"{model} has no class {each!r}", did_you_mean(str(each), names)
            raise ModelError(what, where="classes", expected=f"0 to {count - 1}{also}", fix=fix)
        indices.append(each)
    if len(set(indices)) < len(indices):
        raise ModelError("a class is chosen twice", where="classes", got=", ".join(map(str, chosen)))
    if len(indices) != wanted:
        what = "a class of the teacher's must be chosen for each of the data's, in the order of the data"
        raise ModelError(what, where="classes", expected=f"{wanted}", got=f"{len(indices)}")
    return indices
