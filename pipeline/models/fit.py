"""Fits weights to a model: by name, by timm's own conversions, on request by order; all of them, or all but a head."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models.config import Match
from pipeline.models.weights import holds_weights

_COUNTER = "num_batches_tracked"
_ROLES = {
    "weight": "weight",
    "gamma": "weight",
    "kernel": "weight",
    "bias": "bias",
    "beta": "bias",
    "running_mean": "mean",
    "moving_mean": "mean",
    "running_var": "variance",
    "moving_var": "variance",
    "moving_variance": "variance",
}
"""The kind of a tensor, by the last part of its name in torch or TensorFlow: shapes alone do not decide it."""


@dataclass(frozen=True)
class Kept:
    """Describes what a network keeps of the weights that it begins with.

    Args:
        kept: how many of its `total` tensors.
        new: the names of the others, those of its classifier, which are drawn from the seed.
        by_order: whether weights with other names were mapped by order.
    """

    kept: int
    total: int
    new: tuple[str, ...] = ()
    by_order: bool = False

    def __str__(self) -> str:
        how = ", mapped by order" if self.by_order else ""
        return f"kept {self.kept} of {self.total} tensors{how}" + ("; new: classifier" if self.new else "")


@dataclass(frozen=True)
class _Misfits:
    """Names of tensors that do not fit, by what is wrong with each, as in an error's text."""

    missing: dict[str, str]
    unexpected: dict[str, str]
    mismatched: dict[str, str]

    @classmethod
    def of(cls, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> _Misfits:
        # Counters of batch norms, which old checkpoints lack, do not change what the model computes.
        missing = [name for name in own if name not in weights and not name.endswith(_COUNTER)]
        return cls(
            {name: name for name in missing},
            {name: name for name in weights if name not in own},
            {
                name: f"{name}: model {list(own[name].shape)}, file {list(weights[name].shape)}"
                for name in own
                if name in weights and own[name].shape != weights[name].shape
            },
        )

    def names(self) -> set[str]:
        return {*self.missing, *self.unexpected, *self.mismatched}

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "mismatched": self.mismatched}
        return "; ".join(f"{kind} {_some(list(names.values()))}" for kind, names in kinds.items() if names)


def fit_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    where: Path | str,
    match: Match = "names",
    *,
    new_classifier: bool = False,
    ordered: bool = True,
    classifier: tuple[str, ...] | None = None,
) -> Kept:
    """Load `weights` into `model`, by name, and where names do not fit as timm converts weights of its model.

    Args:
        match: "order" maps weights with other names by their order, if there are as many and all shapes agree.
        ordered: whether the weights still have the order that they were made in.
        new_classifier: the classifier of `model` stays as it is where the weights' does not fit it, or there is none.
        classifier: the names of its tensors; None if timm knows them.

    Raises ModelError, naming tensors, if anything else does not fit; then the model is as it was.
    """
    own = dict(model.state_dict())
    classifier = classifier_tensors(model) if classifier is None else tuple(name for name in classifier if name in own)
    first: _Misfits | None = None
    for candidate in _candidates(model, weights):
        misfits = _Misfits.of(own, candidate)
        names = misfits.names()
        if not names or (new_classifier and names <= set(classifier)):
            return _load(model, candidate, classifier if names else (), by_order=False)
        first = first or misfits
    assert first is not None
    if match == "order":
        mapped = _by_order(own, weights, classifier, where, new_classifier=new_classifier, ordered=ordered)
        misfits = _Misfits.of(own, mapped)
        return _load(model, mapped, classifier if misfits.names() else (), by_order=True)
    if classifier and first.names() <= set(classifier) and not first.missing:
        name = next(name for name in classifier if name in first.mismatched)
        raise ModelError(
            "the weights' classifier is not for the classes of the data",
            where=where,
            expected=f"{own[name].shape[0]} classes",
            got=f"{weights[name].shape[0] if name in weights else 'another number'} ({first})",
            fix=NEW_CLASSIFIER_HINT,
        )
    raise ModelError(
        "the weights do not fit the model",
        where=where,
        got=str(first),
        fix="check `model`, its `options` and the number of classes; `match: order` maps other names by order",
    )


_REORDER_HINT = (
    "save the checkpoint with its tensors in the order of the model's, or under the model's names; if another model was"
    " meant, check `model` and its `options`"
)

NEW_CLASSIFIER_HINT = (
    "train a classifier on them: name them in `teacher_training: {start: ...}`, and in `teacher.weights` another file"
    " for `pipeline train-teacher` to write; a student begins from them with `start`"
)


def classifier_tensors(model: Any) -> tuple[str, ...]:
    """Return the names of the tensors of a timm model's classifier, or classifiers; none if it has none."""
    heads = model.get_classifier() if hasattr(model, "get_classifier") else ()
    heads = heads if isinstance(heads, tuple | list) else (heads,)
    places = tuple(f"{name}." for name, module in model.named_modules() if any(module is head for head in heads))
    return tuple(name for name in model.state_dict() if name.startswith(places)) if places else ()


def _candidates(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """The weights as they are, then as timm converts those of the model's authors."""
    yield weights
    module = sys.modules.get(type(model).__module__)
    for name in ("checkpoint_filter_fn", "_filter_fn"):
        convert = getattr(module, name, None)
        if convert is None:
            continue
        try:
            converted = convert(dict(weights), model)
        except Exception:  # whatever it raises for weights that are none of its own
            continue
        if holds_weights(converted):
            yield converted


def _by_order(
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    classifier: tuple[str, ...],
    where: Path | str,
    *,
    new_classifier: bool,
    ordered: bool,
) -> dict[str, Tensor]:
    """The weights under the model's names. Shapes of the classifier may differ where it may be new."""
    if not ordered:
        raise ModelError(
            "weights cannot be mapped by order: a safetensors file holds them in the order of their names",
            where=where,
            fix="name a torch checkpoint, or rename its tensors to those of the model",
        )
    counters = [name for name in own if name.endswith(_COUNTER)]
    theirs = [name for name in weights if not name.endswith(_COUNTER)]
    mine = [name for name in own if not name.endswith(_COUNTER)]
    if new_classifier and len(theirs) == len(mine) - len(classifier):
        mine = [name for name in mine if name not in classifier]
    if len(theirs) != len(mine):
        raise ModelError(
            "weights cannot be mapped by order: there are not as many",
            where=where,
            expected=f"{len(mine)} tensors",
            got=f"{len(theirs)}",
            fix="check `model` and its `options`",
        )
    for number, (one, other) in enumerate(zip(mine, theirs, strict=True), 1):
        free = new_classifier and one in classifier
        what = _difference(one, other)
        if what is not None or (own[one].shape != weights[other].shape and not free):
            raise ModelError(
                f"weights cannot be mapped by order: tensors number {number} differ{what or ''}",
                where=where,
                expected=f"{one} {list(own[one].shape)}",
                got=f"{other} {list(weights[other].shape)}",
                fix="check `model` and its `options`" if what is None else _REORDER_HINT,
            )
    counted = [name for name in weights if name.endswith(_COUNTER)]
    if len(counted) == len(counters):
        mine, theirs = mine + counters, theirs + counted
    return {one: weights[other] for one, other in zip(mine, theirs, strict=True)}


def _difference(one: str, other: str) -> str | None:
    """How what two tensors are differs, by their names; None if it does not, or if a name does not tell."""
    roles = [_ROLES.get(_last(name)) for name in (one, other)]
    return None if None in roles or roles[0] == roles[1] else f": a {roles[0]} and a {roles[1]}"


def _last(name: str) -> str:
    """The last part of a name, after a point or, as TensorFlow writes it, a slash: `bn/gamma:0` is a `gamma`."""
    return re.split(r"[./]", name)[-1].partition(":")[0].lower()


def _load(model: nn.Module, weights: Mapping[str, Tensor], new: tuple[str, ...], *, by_order: bool) -> Kept:
    used = {name: tensor for name, tensor in weights.items() if name not in new}
    model.load_state_dict(used, strict=False)
    return Kept(len(used), len(used) + len(new), new, by_order)


def _some(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit])
    return f"{len(names)} ({shown}{', ...' if len(names) > limit else ''})"
