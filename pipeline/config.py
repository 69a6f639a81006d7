"""Reads a configuration, applies overrides, validates it against typed sections and reports every problem.

YAML 1.2: `1e-4` is a number and `no` is a word. This module knows no section by name: rooms declare their
sections beside the code that they configure, and a stage composes those that it reads.
"""

from __future__ import annotations

import copy
import functools
import io
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
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
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import ConfigError, Problem, did_you_mean, unknown_name
from pipeline.untrusted import require_plain


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

MOST_BYTES, MOST_VALUES = 1 << 18, 100_000
"""The most bytes and values of a configuration; aliases count as often as they occur."""

Raw = dict[str, Any]
"""A configuration as it was read: plain YAML values."""


class Section(BaseModel):
    """Declares a frozen part of the configuration. Unknown keys are refused, with the nearest known one.

    later: the keys that version 0.1 did not have. With their default values they change nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    later: ClassVar[frozenset[str]] = frozenset()

    def for_identity(self, *left_out: str) -> Raw:
        """Return the section as plain values for an identity.

        left_out: keys that are no part of the identity. Keys in `later` are part of it only where they are set. So an
        artifact of a configuration that does not use a new key keeps its fingerprint.
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


def read_config(path: Path, overrides: Sequence[str] = ()) -> Raw:
    """Read the configuration in the YAML file `path`, and apply `section.key=value` overrides.

    Raises ConfigError if the file cannot be read as a YAML mapping or an override cannot be applied.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1).decode()
    except OSError as error:
        problem = Problem(str(path), f"cannot be read: {error.strerror}", fix="name a file with --config FILE")
        raise ConfigError([problem]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(path), "is not a text file")]) from None
    raw = parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise ConfigError([Problem(str(path), "is not a mapping of sections", got=type(raw).__name__)])
    return override(raw, overrides)


def parse_yaml(text: str, where: str) -> Any:
    """Parse a YAML 1.2 text into plain values. Raises ConfigError, with line and column, if it is not valid.

    where: the file or option, for errors.
    """
    if len(text) > MOST_BYTES:
        raise ConfigError([Problem(where, "is too long for a configuration", f"at most {MOST_BYTES:,} bytes")])
    try:
        return copy.deepcopy(_parsed(text))
    except YAMLError as error:
        raise ConfigError([Problem(where, "is not valid YAML", got=str(error))]) from None
    except RecursionError:
        raise ConfigError([Problem(where, "lists and mappings are nested too deeply")]) from None
    except Exception as error:  # what its parser raises for dates, numbers and tags that are none varies
        raise ConfigError([Problem(where, "holds what is no plain value", got=str(error))]) from None


@functools.lru_cache(maxsize=32)  # a tenth of a second for a configuration, which a command reads several times
def _parsed(text: str) -> Any:
    value = YAML(typ="safe", pure=True).load(text)
    require_plain(value, MOST_VALUES)
    return value


def to_yaml(value: Any) -> str:
    """Return a `value` of nested plain values as YAML 1.2 text."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # keep the order of sections
    yaml.dump(value, stream)
    return stream.getvalue()


def override(raw: Raw, overrides: Sequence[str]) -> Raw:
    """Return a copy of `raw` in which every `a.b.c=value` of `overrides` is set. Values are read as YAML.

    Raises ConfigError for overrides that cannot be applied.
    """
    result: Raw = _copied(raw)
    problems: list[Problem] = []
    for text in overrides:
        key, equals, value_text = text.partition("=")
        parts = key.split(".")
        if not equals or not all(parts):
            problems.append(Problem("--set", "is not section.key=value", "such as train.epochs=5", got=text))
            continue
        try:
            value = parse_yaml(value_text, f"--set {text}")
        except ConfigError as error:
            problems += error.problems
            continue
        place: Any = result
        for part in parts[:-1]:
            if isinstance(place, list) and part.isdigit() and int(part) < len(place):
                place = place[int(part)]
            elif isinstance(place, dict):
                if place.get(part) is None:
                    place[part] = {}
                place = place[part]
            else:
                place = None
                break
        last = parts[-1]
        if isinstance(place, dict):
            place[last] = value
        elif isinstance(place, list) and last.isdigit() and int(last) < len(place):
            place[int(last)] = value
        else:
            problems.append(Problem(f"--set {key}", "leads through a value that has no keys", got=text))
    if problems:
        raise ConfigError(problems)
    try:
        require_plain(result, MOST_VALUES)
    except ValueError as error:
        raise ConfigError([Problem("--set", "makes what is no plain value", got=str(error))]) from None
    return result


def _copied(value: Any) -> Any:
    """Return a copy without shared parts, so that what an alias of YAML repeats can be overridden in one place."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def bind(raw: Mapping[str, Any], model: type[SectionT], known: Collection[str], source: object = None) -> SectionT:
    """Validate the sections of `raw` that `model` declares, and return them.

    known: the names of all sections that exist; another name is a problem. Sections that `model` does not declare are
    not validated. source: the file of the configuration, for errors. Raises ConfigError with every problem.
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


def bind_each(raw: Mapping[str, Any], model: type[Section], known: Collection[str]) -> tuple[Raw, list[Problem]]:
    """Validate each section of `raw` by itself; return the valid ones, and the problems of the others.

    raw, model, known: as for `bind`. Sections that are valid can be used even if others are not. In a section with
    named entries (`dict[...]` in the model) the same is true of each entry.
    """
    problems, valid = _unknown_sections(raw, known), {}
    fields = model.model_fields
    for name, field in ((name, fields[name]) for name in known if name in fields):
        alone: Any = create_model(name, __base__=Section, **{name: (field.annotation, field)})  # type: ignore[call-overload]
        given = {name: raw[name]} if name in raw else {}
        try:
            valid[name] = getattr(alone.model_validate(given), name)
        except ValidationError as error:
            problems += problems_of(error)
            if get_origin(field.annotation) is dict and isinstance(raw.get(name), Mapping):
                wrong = {line["loc"][1] for line in error.errors()}
                entries = {key: value for key, value in raw[name].items() if key not in wrong}
                valid[name] = getattr(alone.model_validate({name: entries}), name)
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

    error: of pydantic. key: of the value that was validated, if it is a part of a configuration.
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
