"""Defines the errors that Decant raises for its users.

    PipelineError
    ├── ConfigError        every problem of a configuration at once (`pipeline.config`)
    │   └── ArgumentError  the same of the arguments of a call from Python
    ├── DataError          a packed data set or its source
    ├── ModelError         a network, its taps or its weights
    ├── CacheError         a teacher cache
    │   ├── CacheNotFound
    │   ├── CacheUnfinished
    │   ├── CacheMismatch
    │   └── CacheCorrupt
    ├── TrainingError      a run that cannot go on
    └── OwnCodeError       what code of the user's own raised

A message says what is wrong, where, what was expected, what was found, and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

# What there is to do, for those who run a command and for those who call a function from Python.
CACHE_COMMAND = "`pipeline cache-teacher` (in Python, cache_teacher)"
REPLACE_HINT = "pass --replace (in Python, replace=True)"
RESTORE_HINT = "restore it (`dvc checkout`), or make it again with " + CACHE_COMMAND + " and --replace (replace=True)"


def message(
    what: str,
    *,
    where: object = None,
    expected: object = None,
    got: object = None,
    fix: str | None = None,
) -> str:
    """Return the text of a message, with a line for each part that is known.

    Args:
        what: is wrong.
        where: the file, key or sample.
        expected, got: the right value and the one that was found.
        fix: what to do next.
    """
    lines = [what]
    for name, value in (("where", where), ("expected", expected), ("got", got), ("do", fix)):
        if value is not None:
            lines.append(f"  {name}: {value}")
    return printable("\n".join(lines))


def printable(text: str) -> str:
    """Return `text` with escapes for characters that move the cursor of a terminal, colour it or hide letters.

    Messages quote names and contents of files that may come from anywhere.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, for a message that quotes it; the error's type if it has no text."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class PipelineError(Exception):
    """Reports what Decant refuses or cannot do.

    Args:
        what, where, expected, got, fix: as for `message`.

    Attributes:
        exit_code: what the command returns.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        got: object = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(message(what, where=where, expected=expected, got=got, fix=fix))


class OwnCodeError(PipelineError):
    """Reports an error that arose in code of the user's own, such as an operation or an objective."""


@contextmanager
def during(what: Callable[[], str]) -> Iterator[None]:
    """Note on an error that is none of Decant's what was being done: it may be of code of the user's own.

    Args:
        what: returns that, such as "view 3 of samples a, b".
    """
    try:
        yield
    except PipelineError:
        raise
    except (Exception, SystemExit) as error:
        error.add_note(what())
        raise


@dataclass(frozen=True)
class Problem:
    """Describes one problem of a configuration.

    Args:
        key: the dotted key.
        what: is wrong.
        expected, got: the right value and the one that was found.
        fix: what to do next.
    """

    key: str
    what: str
    expected: str | None = None
    got: str | None = None
    fix: str | None = None

    @property
    def line(self) -> str:
        """Return the problem in one line, for lists of what is wrong with a file."""
        got = f" (got {self.got})" if self.got else ""
        return f"{self.key:.100}: {self.what:.200}{got:.150}"

    def below(self, key: str) -> Problem:
        """Return the same problem of a value that is at the dotted `key`."""
        return replace(self, key=".".join(filter(None, (key, self.key))))

    def __str__(self) -> str:
        return message(f"{self.key}: {self.what}", expected=self.expected, got=self.got, fix=self.fix)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of the `known` names that is most like `name`; None if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return the question whether the nearest of the `known` names was meant; None if none is close to `name`."""
    close = nearest(name, known)
    return f"did you mean {close!r}?" if close else None


def unknown_name(key: str, name: str, known: Iterable[str]) -> Problem:
    """Make the problem of a `name` at the dotted `key` that is not one of the `known` ones."""
    known = list(known)
    return Problem(
        key,
        f"unknown name {name!r}",
        expected="one of " + ", ".join(known) if known else "nothing: none exist",
        got=repr(name),
        fix=did_you_mean(name, known),
    )


class ConfigError(PipelineError):
    """Reports every problem of a configuration at once, before any work starts.

    Args:
        problems: at least one. A text is the whole message, and there are no problems then: so a DataLoader makes the
            error of a worker process again.
        source: the file of the configuration, for the message; None for none.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[Problem] | str, source: object = None) -> None:
        self._source = source
        if isinstance(problems, str):
            self.problems: tuple[Problem, ...] = ()
            super().__init__(problems)
            return
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        head = f"{count} in {self._subject(source)}"
        super().__init__("\n".join([head, *(f"- {problem}" for problem in self.problems)]))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[Sequence[Problem] | str, object]]:
        return type(self), (self.problems or str(self), self._source)

    def _subject(self, source: object) -> str:
        return "the configuration" + (f" {source}" if source else "")


class ArgumentError(ConfigError):
    """Reports every problem of the arguments of a call from Python. source: the function that was called."""

    def _subject(self, source: object) -> str:
        return f"the arguments of {source}"


class DataError(PipelineError):
    """Reports a packed data set, or a source of one, that is missing, malformed or not the requested one."""

    exit_code = 2


class ModelError(PipelineError):
    """Reports a network that cannot be built, lacks a tap, or has weights that do not fit."""

    exit_code = 2


class CacheError(PipelineError):
    """Reports a teacher cache that cannot be written or read."""


class CacheNotFound(CacheError):  # noqa: N818 - the names are part of the contract
    """Reports that there is no teacher cache at a path."""

    exit_code = 2


class CacheUnfinished(CacheError):  # noqa: N818
    """Reports a teacher cache that was begun and not finished."""

    exit_code = 2


class CacheMismatch(CacheError):  # noqa: N818
    """Reports a teacher cache that is not the requested one; every field that differs is named."""

    exit_code = 2


class CacheCorrupt(CacheError):  # noqa: N818
    """Reports bytes of a teacher cache that are not the bytes that were written."""


class TrainingError(PipelineError):
    """Reports that training cannot go on, such as for a loss that is not finite or a checkpoint of another run."""
