"""Declares the section `views`, and the type of a list of operations for any section that has one."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo

from pipeline import plugins
from pipeline.config import Section
from pipeline.views.operation import OperationOptions

OPERATIONS = "pipeline.views.operations"


def _bind(value: object, info: ValidationInfo) -> object:
    """The `Options` of the operation that `value` names; every problem keeps its place below the list."""
    if isinstance(value, OperationOptions):
        return value
    if plugins.names_alone(info):
        return OperationOptions.model_construct(name=plugins.named(OPERATIONS, value))
    return plugins.choose(OPERATIONS, value).options


Operations = tuple[Annotated[SerializeAsAny[OperationOptions], BeforeValidator(_bind)], ...]
"""Operations in the order in which they are applied, each validated by its own file."""


class ViewsConfig(Section):
    """Says which views there are: numbers `first` to `first + count - 1`, keyed by `seed`.

    Without operations every view is the sample itself.
    """

    count: int = Field(1, ge=1)
    first: int = Field(0, ge=0)
    seed: int = Field(0, ge=0, lt=2**63)
    operations: Operations = ()


class ViewsSection(Section):
    """Declares that the section `views` is read; without it every sample has one view, the image as it is."""

    views: ViewsConfig = ViewsConfig()
