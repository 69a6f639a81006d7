"""Builds models of other kinds than timm's: each file those whose names have its form, as `torchvision/resnet18`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from pipeline import plugins

if TYPE_CHECKING:
    from pipeline.models.base import Network
    from pipeline.models.preprocessing import Preprocessing
    from pipeline.models.request import Request

KINDS = "pipeline.models.kinds"


class Kind(Protocol):
    """Declares the functions of a kind's file. None of them imports a library before a model of the kind is named."""

    def matches(self, model: str) -> bool:
        """Tell whether a model's name has the form of this kind."""

    def expects(self, model: str) -> Preprocessing:
        """Return what the model's own weights expect of images; `NEUTRAL` where that is not known.

        Raises ModelError if there is no such model.
        """

    def reads(self, model: str) -> tuple[Path, ...]:
        """Return the files and folders of this machine that decide what is built: DVC depends on them."""

    def known_classes(self, model: str) -> tuple[str, ...]:
        """Return the names of the classes of the model's own weights, in order; none where they are not known.

        Raises ModelError if there is no such model.
        """

    def build(self, request: Request) -> Network:
        """Build the network. Raises ModelError.

        Args:
            request: what the configuration asks for.
        """


def name_in_identity(model: str) -> str:
    """Return how an identity names a model: a file that its digest identifies has no path there, so it may be moved.

    Args:
        model: as a configuration names it.
    """
    return str(getattr(kind_of(model), "NAMED", model))


def name_for_people(model: str, configured: str) -> str:
    """Return how pages name the model of an identity that is the configured one: a file, by the name of its file.

    Args:
        model: as the identity names it.
        configured: as a configuration names it.
    """
    return Path(configured).name if model == name_in_identity(configured) != configured else model


def kind_of(model: str) -> Kind | None:
    """Return the kind whose form a model's name has; None of timm's models."""
    for name in plugins.names(KINDS):
        kind = cast(Kind, plugins.load(KINDS, name, "model"))
        if kind.matches(model):
            return kind
    return None
