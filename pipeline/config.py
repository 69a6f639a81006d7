"""Validates a configuration against typed sections, and reports every problem.

This module knows no section by name: rooms declare their sections beside the code that they configure, and a stage
composes those that it reads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline.errors import ConfigError, Problem, did_you_mean, unknown_name
from pipeline.yaml_text import Raw


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
        raise ValueError("a name begins with a letter or digit, and has letters, digits, '_', '.' and '-' alone")
    return text


Name = Annotated[str, AfterValidator(_name)]
"""The name of a student or an objective set: it becomes part of paths and of DVC's stage names."""


def from_home(path: Path) -> Path:
    """Return a path with the home folder where `~` stands."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - keeps the names of unknown users, without error


LocalPath = Annotated[Path, AfterValidator(from_home)]
"""A file or folder of this machine, in which `~` is the home folder."""


class Section(BaseModel):
    """Declares a frozen part of the configuration. Unknown keys are refused, with the nearest known one.

    Attributes:
        later: the keys that version 0.1 did not have. With their default values they change nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    later: ClassVar[frozenset[str]] = frozenset()

    def for_identity(self, *left_out: str) -> Raw:
        """Return the section as plain values for an identity.

        Args:
            left_out: keys that are no part of the identity. Keys in `later` are part of it only where they are set. So
                an artifact of a configuration that does not use a new key keeps its fingerprint.
        """
        fields = type(self).model_fields
        unused = {name for name in self.later if getattr(self, name) == fields[name].default}
        return self.model_dump(mode="json", exclude={*left_out, *unused})

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_nearest(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            details: list[InitErrorDetails] = []
            for line in error.errors(include_url=False):
                kind: str | PydanticCustomError = line["type"]
                if kind == "extra_forbidden" and len(line["loc"]) == 1:
                    known = ", ".join(cls.model_fields)
                    hint = did_you_mean(str(line["loc"][0]), cls.model_fields) or ""
                    kind = PydanticCustomError("unknown_key", "unknown key", {"known": known, "hint": hint})
                else:
                    kind = _as_custom(line)
                details.append(InitErrorDetails(type=kind, loc=line["loc"], input=line["input"]))
            raise ValidationError.from_exception_data(cls.__name__, details) from None


def _as_custom(line: Any) -> PydanticCustomError:
    """A line error that can be raised again one level up, where pydantic cannot rebuild it from its type."""
    context = {k: str(v) for k, v in line.get("ctx", {}).items()}
    # As a value: pydantic would take braces in the message itself for places of values.
    return PydanticCustomError(line["type"], "{message}", {**context, "message": line["msg"]})


SectionT = TypeVar("SectionT", bound=Section)


def bind(raw: Mapping[str, Any], model: type[SectionT], known: Collection[str], source: object = None) -> SectionT:
    """Validate the sections of `raw` that `model` declares, and return them.

    Args:
        known: the names of all sections that exist; another name is a problem. Sections that `model` does not declare
            are not validated.
        source: the file of the configuration, for errors.

    Raises ConfigError with every problem.
    """
    problems = _unknown_sections(raw, known)
    mine = {name: value for name, value in raw.items() if name in model.model_fields}
    try:
        result = model.model_validate(mine)
    except ValidationError as error:
        order = {name: place for place, name in enumerate(known)}
        problems += sorted(problems_of(error), key=lambda problem: order.get(problem.key.partition(".")[0], len(order)))
    if problems:
        raise ConfigError(in_order(problems, raw), source)
    return result


def bind_each(
    raw: Mapping[str, Any], model: type[Section], known: Collection[str], context: Raw | None = None
) -> tuple[Raw, list[Problem]]:
    """Validate each section of `raw` by itself; return the valid ones, and the problems of the others.

    Args:
        raw, model, known: as for `bind`.
        context: what validators are told (`pipeline.plugins.NAMES_ALONE`).

    Sections that are valid can be used even if others are not. In a section with named entries (`dict[...]` in the
    model) the same is true of each entry.
    """
    problems, valid = _unknown_sections(raw, known), {}
    fields = model.model_fields
    for name, field in ((name, fields[name]) for name in known if name in fields):
        alone: Any = create_model(name, __base__=Section, **{name: (field.annotation, field)})  # type: ignore[call-overload]
        given = {name: raw[name]} if name in raw else {}
        try:
            valid[name] = getattr(alone.model_validate(given, context=context), name)
        except ValidationError as error:
            problems += problems_of(error)
            if get_origin(field.annotation) is dict and isinstance(raw.get(name), Mapping):
                wrong = {line["loc"][1] for line in error.errors()}
                entries = {key: value for key, value in raw[name].items() if key not in wrong}
                valid[name] = getattr(alone.model_validate({name: entries}, context=context), name)
    return valid, problems


def _unknown_sections(raw: Mapping[str, Any], known: Collection[str]) -> list[Problem]:
    return [unknown_name(str(name), str(name), known) for name in raw if name not in known]


def in_order(problems: Iterable[Problem], raw: Mapping[str, Any]) -> list[Problem]:
    """Return each of `problems` once, in the order of the sections in `raw`; others come last."""
    places = {str(name): place for place, name in enumerate(raw)}

    def place(problem: Problem) -> int:
        section = problem.key if problem.key in places else problem.key.partition(".")[0]
        return places.get(section, len(places))

    return sorted(dict.fromkeys(problems), key=place)


def problems_of(error: ValidationError, key: str = "") -> list[Problem]:
    """Turn pydantic's errors into problems: dotted key, what, expected, got, nearest name.

    Args:
        error: of pydantic.
        key: of the value that was validated, if it is a part of a configuration.
    """
    problems = []
    for line in error.errors(include_url=False):
        context = line.get("ctx", {})
        place = ".".join([*([key] if key else []), *map(str, line["loc"])])
        got = None if line["type"] in ("missing", "unknown_key") else _short(line["input"])
        problems.append(
            Problem(
                place or "(top level)",
                line["msg"].removeprefix("Value error, "),
                expected=f"one of {context['known']}" if context.get("known") else context.get("wanted") or None,
                got=got,
                fix=context.get("hint") or None,
            )
        )
    return problems


def _short(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def resolved(config: BaseModel) -> Raw:
    """Return every value of `config`, defaults included, as plain YAML values."""
    return config.model_dump(mode="json")
