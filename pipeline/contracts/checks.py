"""Runs the checks of a contract: the public methods of a class, each of which raises where something is not kept."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator
from typing import NamedTuple


class NotTried(Exception):  # noqa: N818 - it is no failure
    """Reports that a check cannot be tried here.

    Args:
        reason: why.
    """


class CheckResult(NamedTuple):
    """Holds what came of one check.

    Args:
        check: what is to hold, in words.
        held: whether it does; None if it was not tried.
        reason: what does not hold, or why it was not tried; empty if it holds.
    """

    check: str
    held: bool | None
    reason: str = ""


def checks_of(contract: type) -> list[str]:
    """Return the names of the checks of a contract, in the order in which they are written.

    Args:
        contract: a class; its public methods are the checks.
    """
    return [name for name, value in vars(contract).items() if callable(value) and not name.startswith("_")]


def outcomes(contract: object) -> Iterator[CheckResult]:
    """Try every check of a contract, and yield what came of it.

    Args:
        contract: an instance of its class, for one plug-in.
    """
    for name in checks_of(type(contract)):
        sentence = name.replace("_", " ")
        try:
            getattr(contract, name)()
        except NotTried as error:
            yield CheckResult(sentence, None, str(error))
        except Exception as error:  # of a plug-in that may do anything
            yield CheckResult(sentence, False, _reason(error))
        else:
            yield CheckResult(sentence, True)


def _reason(error: Exception) -> str:
    """What an error says; of an assertion without words, the line that does not hold."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, AssertionError):
        line = linecache.getline(last.filename, last.lineno or 0).strip()
        return str(error).partition("\n")[0] or line.removeprefix("assert ")
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
