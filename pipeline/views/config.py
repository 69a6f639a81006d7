"""The `views` section, and the type of a list of operations for any section that has one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline import plugins
from pipeline.config import Section
from pipeline.views.operation import OperationOptions

OPERATIONS = "pipeline.views.operations"


def _bind(value: Any) -> Any:
    """The `Options` of the operation that `value` names; every problem keeps its place below the list."""
    if isinstance(value, OperationOptions):
        return value
    known = plugins.names(OPERATIONS)
    if not isinstance(value, dict):
        example = value if isinstance(value, str) and value in known else known[0]
        raise PydanticCustomError("operation", "is not a mapping: write 'name: {name}'", {"name": example})
    name = value.get("name")
    if not isinstance(name, str) or name not in known:
        close = plugins.nearest(str(name), known)
        context = {"known": ", ".join(known), "hint": f"did you mean {close!r}?" if close else ""}
        what = "unknown operation" if "name" in value else "an operation needs a name"
        problem = PydanticCustomError("unknown_operation", what, context)
        detail = InitErrorDetails(type=problem, loc=("name",), input=name)
        raise ValidationError.from_exception_data("operation", [detail])
    options: type[OperationOptions] = plugins.load(OPERATIONS, name, "name").Options
    return options.model_validate(value)


Operations = tuple[Annotated[SerializeAsAny[OperationOptions], BeforeValidator(_bind)], ...]
"""Operations in the order in which they are applied, each validated by its own file."""


class ViewsConfig(Section):
    """Which views there are: numbers `first` to `first + count - 1`, keyed by `seed`.

    Without operations every view is the sample itself.
    """

    count: int = Field(1, ge=1)
    first: int = Field(0, ge=0)
    seed: int = Field(0, ge=0, lt=2**63)
    operations: Operations = ()


class ViewsSection(Section):
    """Declares that the section `views` is read; without it every sample has one view, the image as it is."""

    views: ViewsConfig = ViewsConfig()
