"""Reads files with the names of classes, and compares them with those in a packed data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import DataError
from pipeline.untrusted import parse_json, read_file

_MOST_BYTES = 1 << 26
_FORM_HINT = "a JSON list of names, or one name in each line, in the order of the labels"


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read the names in a file, in the order of the labels: a JSON list of text, or one name in each line.

    Args:
        path: of the file.

    Raises DataError if it cannot be read, is empty, or has a name twice.
    """
    try:
        text = read_file(path.expanduser(), _MOST_BYTES, follow=True).decode("utf-8-sig")
        names = parse_json(text.encode()) if text.lstrip().startswith("[") else _lines(text)
        if not all(isinstance(name, str) for name in names):
            raise ValueError("a list of other things")
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise _unusable(path, "not UTF-8 text") from None
    except ValueError as error:
        raise _unusable(path, str(error)) from None
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice or not names:
        raise _unusable(path, f"{', '.join(map(repr, twice[:5]))} more than once" if twice else "no name")
    return tuple(names)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _unusable(path: Path, got: str) -> DataError:
    return DataError("the names of the classes cannot be used", where=path, expected=_FORM_HINT, got=got)


def declared_names(classes: int | Path, stored: Sequence[str], largest: int, where: Path) -> tuple[str, ...]:
    """Return the names that `data.classes` gives a packed data set: those of a file, or the numbers 0 to K-1.

    Args:
        stored: the class names in the packed data set, empty if it has none: they must be the same.
        largest: its largest label, -1 if it has none.

    Raises DataError, at `where`, if they do not agree.
    """
    names = None if isinstance(classes, int) else read_class_names(classes)
    count = classes if isinstance(classes, int) else len(names or ())
    what = expected = None
    got: object = count
    if stored and count != len(stored):
        what, expected = "data.classes is another number of classes", f"the {len(stored)} of the packed data set"
    elif names is not None and stored and names != tuple(stored):
        first = next(k for k in range(count) if names[k] != stored[k])
        what = "data.classes names other classes than the packed data set, or in another order"
        expected, got = f"{stored[first]!r} as class {first}", repr(names[first])
    elif largest >= count:
        what, expected, got = "a label is beyond data.classes", f"labels 0 to {count - 1}", largest
    if what is not None:
        fix = "correct data.classes, or leave it out where the packed data set knows its classes"
        raise DataError(what, where=where, expected=expected, got=got, fix=fix)
    return tuple(stored) or names or tuple(str(k) for k in range(count))
