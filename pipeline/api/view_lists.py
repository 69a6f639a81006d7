"""Makes the section `views` of a configuration from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from pipeline.config import problems_of
from pipeline.errors import ConfigError
from pipeline.views import ViewsConfig


def make_views(
    operations: Sequence[str | Mapping[str, Any]] = (), count: int = 1, *, seed: int = 0, first: int = 0
) -> ViewsConfig:
    """Describe the views of every image. Each can be rendered again, pixel by pixel, from the seed.

    Args:
        operations: in the order in which they are applied: a name, or a mapping with `name` and options, as in the
            section `views` of a configuration. Without any, a view is the image itself.
        count: how many views of every image.
        seed: what they are drawn from. The same seed, operations and number of a view give the same pixels.
        first: the number of the first view. Views 8 to 15 of another cache are more views of the same kind.

    Raises:
        ConfigError: operations or options that do not exist, every problem at once.

    Example:
        >>> from pipeline import make_views
        >>> augment = make_views([{"name": "pad-crop", "padding": 4}, "horizontal-flip"], count=8)
        >>> augment.count, [operation.name for operation in augment.operations]
        (8, ['pad-crop', 'horizontal-flip'])
    """
    entries = [{"name": each} if isinstance(each, str) else dict(each) for each in operations]
    try:
        return ViewsConfig.model_validate({"operations": entries, "count": count, "seed": seed, "first": first})
    except ValidationError as error:
        raise ConfigError(problems_of(error), "of make_views") from None
