"""Builds networks from the names of models: timm's, and by their kinds those of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.errors import ModelError
from pipeline.models.base import Network
from pipeline.models.config import Match
from pipeline.models.fit import NEW_CLASSIFIER_HINT, Kept, classifier_tensors, fit_weights
from pipeline.models.kinds import kind_of
from pipeline.models.network import TimmNetwork
from pipeline.models.preprocessing import InputSize, Interpolation, PerChannel, as_input_size
from pipeline.models.pretrained import SOURCES, refuse_absent, timm_facts, timm_library
from pipeline.models.request import Request, Weights, adapted, class_indices, options_text, seeded
from pipeline.models.trained import expected_by, refuse_untold_normalisation
from pipeline.models.weights import keeps_order, load_weights

_OURS = ("num_classes", "in_chans", "pretrained", "features_only")
_FOREIGN = ("checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay")


def build_network(
    model: str,
    num_classes: int,
    weights: Weights | None = None,
    input_size: int | Sequence[int] | None = None,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int | None = None,
    *,
    start: Weights | None = None,
    match: Match = "names",
    interpolation: Interpolation | None = None,
    offline: bool = False,
    blocks: Sequence[str] | None = None,
    head: str | None = None,
    classes: Sequence[int | str] | None = None,
    any_classes: bool = False,
) -> Network:
    """Build the model `model` with `num_classes` logits as a network, on the CPU, in training mode.

    With 0 it has no classifier, and that of its weights is left out.

    `model` may be `hf-hub:owner/name` or `local-dir:folder`: nothing of theirs is executed. `weights`: a safetensors
    file or torch checkpoint of all of them; "pretrained", timm's own, by network where they are not on disk; or
    None, random. `start`: the same, but the classifier is new, drawn from the seed, where theirs does not fit;
    `Network.kept` says what was kept. `match`: "order" maps weights with other names by their order. `offline`:
    random weights stand for timm's own, and all else is as it would be. `input_size` in pixels, of a square or as
    height and width, by default `options.img_size` or the size that the model was made for. `mean` and `std`, in units
    of the full range, and `interpolation`, of images of another size, default to those that the weights expect
    (`expected_by`): 0.5, 0.25 and bilinear of random ones. The network takes as many channels as `mean` has values.
    `options` are arguments of the timm model. With a `seed`, the initialisation depends on nothing else, and the global
    random generator is left as it was.

    A name of another form is that of another library's (`pipeline.models.kinds`). `blocks` and `head` are paths of
    modules inside the model, for features and the last linear layer; None finds them. `classes`: of a model with more
    logits, the classes that are kept, by index or name, in the order of the data's. `any_classes`: `num_classes` is a
    guess, since there is no data yet. Raises ModelError.

    Example:
        >>> from pipeline import build_network
        >>> build_network("cifar_resnet8", 10, input_size=32, seed=0).taps["logits"]
        (10,)
    """
    options = dict(options or {})
    if weights is not None and start is not None:
        raise ModelError("a network has `weights` or a `start`, not both", where=model, fix="leave one of them out")
    if mean is None or std is None:
        refuse_untold_normalisation(model, start or weights)
    default = expected_by(model, start or weights)
    mean, std = tuple(mean or default.mean), tuple(std or default.std)
    interpolation = interpolation or default.served(model)
    request = Request(
        model,
        num_classes,
        weights,
        start,
        as_input_size(input_size) if input_size else None,
        mean,
        std,
        interpolation,
        options,
        seed,
        match,
        offline,
        blocks,
        head,
        classes,
        any_classes,
    )
    if (kind := kind_of(model)) is not None:
        return kind.build(request)
    if classes is not None:
        own = _own_classes(request)
        whole = build_network(**{**vars(request), "num_classes": own, "classes": None})
        whole.keep_classes(class_indices(model, classes, class_names(model), num_classes, own))
        return whole
    if "pretrained" in (weights, start):
        _refuse_without_weights(model, num_classes, weights == "pretrained", offline)
    # A classifier that is taken off again takes the place of the one that the weights may have.
    spare = num_classes == 0 and (isinstance(weights, Path) or start is not None)
    with seeded(seed):
        built = _create(model, 1 if spare else num_classes, weights == "pretrained" and not offline, options, len(mean))
    kept = None
    if start == "pretrained":
        with seeded(0):  # its weights are replaced, but drawing them must not move the global generator
            source = _create(model, None, not offline, options, len(mean))
        kept = fit_weights(built, source.state_dict(), f"timm's weights of {model}", new_classifier=True)
    elif isinstance(path := weights or start, Path):
        loaded = load_weights(path)
        new = spare or weights is None
        kept = fit_weights(built, loaded, path, match, new_classifier=new, ordered=keeps_order(path))
    if spare:
        built.reset_classifier(0)
        kept = kept and Kept(kept.kept, kept.kept, by_order=kept.by_order)
    cfg = getattr(built, "pretrained_cfg", None) or {}
    size = request.input_size or _own_size(options, cfg)
    if blocks is not None or head is not None:
        network = adapted(built, request, size, headless=not num_classes)
        network.kept = kept
        return network
    try:
        return TimmNetwork(
            built,
            model,
            options,
            num_classes,
            size,
            mean,
            std,
            kept,
            interpolation,
        )
    except ModelError:
        raise
    except Exception as error:  # whatever a model raises on images that it was not made for
        raise ModelError(
            f"{model} does not run on images of {size} pixels, or has no taps",
            got=f"{type(error).__name__}: {error}",
            fix="set `input_size`, and `options: {img_size: ...}` for a model of one fixed size",
        ) from error


def _own_classes(request: Request) -> int:
    """How many classes a model of timm has before some are chosen: those of its weights."""
    if isinstance(request.weights, Path):
        names = classifier_tensors(_create(request.model, 2, False, dict(request.options), len(request.mean)))
        loaded = load_weights(request.weights)
        sizes = [len(loaded[name]) for name in names if name in loaded]
        if sizes:
            return sizes[0]
    return int(timm_facts(request.model).get("num_classes", 1000))


def class_names(model: str) -> list[str]:
    """Return the names of the classes of a library's weights of a model; none where they are not known.

    Args:
        model: its name. timm's are ImageNet's synsets.
    """
    if (kind := kind_of(model)) is not None:
        return list(kind.known_classes(model))
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(timm_facts(model))
    return [] if subset is None else list(ImageNetInfo(subset).label_names())  # type: ignore[no-untyped-call]


def _refuse_without_weights(model: str, num_classes: int, whole: bool, offline: bool) -> None:
    """Raise ModelError if timm has no weights for the model, or none for these classes, or cannot have them."""
    cfg = timm_facts(model)
    if not cfg:
        raise ModelError(f"timm has no weights of {model}", fix="name a weights file in place of `pretrained`")
    if whole and num_classes and cfg["num_classes"] != num_classes:  # timm would draw a classifier, without a word
        raise ModelError(
            f"the classifier of timm's weights of {model} is not for the classes of the data",
            expected=f"{num_classes} classes",
            got=f"{cfg['num_classes']}",
            fix=NEW_CLASSIFIER_HINT,
        )
    if not offline:
        refuse_absent(model)


def _create(name: str, num_classes: int | None, pretrained: bool, options: dict[str, Any], channels: int = 3) -> Any:
    """num_classes: None for those of timm's weights."""
    timm_facts(name)  # refuses a name that is none
    refused = [key for key in options if key in _OURS + _FOREIGN]
    if refused:
        raise ModelError(
            f"{name}: options that are not for the model",
            where="options." + ", options.".join(refused),
            expected="arguments of the timm model's architecture",
            fix="weights come from `weights`, the number of classes from the data, that of channels from `mean`",
        )
    try:
        given = options if channels == 3 else {**options, "in_chans": channels}  # which not every model takes
        built: nn.Module = timm_library().create_model(name, pretrained=pretrained, num_classes=num_classes, **given)
    except Exception as error:  # timm's models raise whatever their layers raise
        raise ModelError(
            f"{name} cannot be built" + (" with timm's weights" if pretrained else ""),
            where=options_text(options),
            got=f"{type(error).__name__}: {error}",
            fix="name a weights file in place of `pretrained`" if pretrained else None,
        ) from error
    if not hasattr(built, "forward_intermediates"):
        raise ModelError(f"{name} gives no intermediate maps", fix="choose a model with `forward_intermediates`")
    return built


def own_input_size(model: str, options: Mapping[str, Any]) -> InputSize | None:
    """Return the size in pixels of a model's input, if no `input_size` is configured, without building the model.

    Args:
        model, options: as in the configuration.

    Returns None for a model that a folder or a hub describes, since it must be built. Raises ModelError for a model
    that does not exist.
    """
    if kind_of(model) is not None:
        return None
    timm_facts(model)  # refuses unknown names
    if model.partition(":")[0] in SOURCES:
        return None
    known = timm_library().models.get_pretrained_cfg(model)
    return _own_size(options, asdict(known) if known is not None else {})


def _own_size(options: Mapping[str, Any], cfg: Mapping[str, Any]) -> InputSize:
    return as_input_size(options.get("img_size") or cfg.get("input_size", (3, 224, 224))[-2:])
