"""Makes the section `views` of a configuration from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from pipeline.api.arguments import one_or_more
from pipeline.config import problems_of
from pipeline.errors import ArgumentError, Problem
from pipeline.views import ViewsConfig

OneOperation = str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]
"""An operation as people write it: `horizontal-flip`, `("pad-crop", {"padding": 4})`, or the YAML's mapping."""

ViewList = ViewsConfig | OneOperation | Sequence[OneOperation]
"""What describes views: what `make_views` returns, or the operations of one view."""


def make_views(
    operations: OneOperation | Sequence[OneOperation] = (), count: int = 1, *, seed: int = 0, first: int = 0
) -> ViewsConfig:
    """Describe the views of every image. Each can be rendered again, pixel by pixel, from the seed.

    Args:
        operations: in the order in which they are applied: names, pairs of a name and options, or mappings with `name`
            and options, as in the section `views` of a configuration. One alone needs no list. Without any, a view is
            the image itself. The mapping of the whole section will do, `{"operations": [...], "count": 4}`.
        count: how many views of every image.
        seed: what they are drawn from. The same seed, operations and number of a view give the same pixels.
        first: the number of the first view. Views 8 to 15 of another cache are more views of the same kind.

    Raises:
        ConfigError: operations or options that do not exist, every problem at once.

    Example:
        >>> from pipeline import make_views
        >>> augment = make_views([("pad-crop", {"padding": 4}), "horizontal-flip"], count=8)
        >>> augment.count, [operation.name for operation in augment.operations]
        (8, ['pad-crop', 'horizontal-flip'])
        >>> make_views({"operations": [{"name": "pad-crop", "padding": 4}, "horizontal-flip"], "count": 8}) == augment
        True
    """
    given = {"count": count, "seed": seed, "first": first}
    section: dict[str, Any]
    if isinstance(operations, Mapping) and "name" not in operations:
        twice = [name for name, value in given.items() if value != DEFAULTS[name]]
        if twice:
            what, fix = "has no effect beside the mapping of the section", "write it into the mapping"
            raise ArgumentError([Problem(name, what, fix=fix) for name in twice], "make_views")
        section = dict(operations)
        if "operations" in section:
            section["operations"] = _entries(section["operations"])
    else:
        section = {"operations": _entries(operations), **given}
    try:
        return ViewsConfig.model_validate(section)
    except ValidationError as error:
        raise ArgumentError(problems_of(error), "make_views") from None


DEFAULTS = {"count": 1, "seed": 0, "first": 0}
"""The default values of the arguments of `make_views`."""


def as_views(views: ViewList) -> ViewsConfig:
    """Return what describes views as `make_views` does: as it is, or of a list of operations. Raises ConfigError."""
    return views if isinstance(views, ViewsConfig) else make_views(views)


def _entries(operations: object) -> list[Any]:
    """Return operations as the section `views` has them; what is none is left for the section to refuse."""
    return [
        {"name": each[0], **each[1]}
        if isinstance(each, tuple | list) and len(each) == 2 and isinstance(each[1], Mapping)
        else each
        for each in one_or_more(operations)
    ]
