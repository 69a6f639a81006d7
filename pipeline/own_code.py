"""Imports code of the user's own by `module:name`, from the working directory and from installed packages.

Such a name runs code. It is taken from what the user writes, and never from a file that may come from anywhere. The
working directory comes first, as with `python -m`: the command `pipeline` alone would not look there. It stays on the
search path once something was imported from it, so that processes which are started later find the same modules.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.errors import OwnCodeError, did_you_mean, first_line

INSTALLED = ("site-packages", "dist-packages")
"""Folders of installed packages: these are not the user's own, wherever they lie."""

OURS = ("pipeline", "stages", "__main__")
"""Modules that are none of the user's, though the working directory may be that of Decant's own code."""


class NotImportable(Exception):  # noqa: N818 - it is no error of Decant, and each room says what it means there
    """Reports code that cannot be imported.

    Args:
        what: is wrong.
        where: the module or file.
        fix: what to do next.
    """

    def __init__(self, what: str, where: str, fix: str | None) -> None:
        super().__init__(what)
        self.what, self.where, self.fix = what, where, fix


def is_own(name: object) -> bool:
    """Tell whether a name has the form `module:name`."""
    return isinstance(name, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name) is not None


def imported(name: str) -> Any:
    """Import what `module:name` stands for.

    Args:
        name: of that form.

    Raises:
        NotImportable: there is no such module, it raised an error, or it has nothing of this name.
    """
    path, _, attribute = name.partition(":")
    module = _module(path)
    if not hasattr(module, attribute):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        where = str(getattr(module, "__file__", None) or path)
        raise NotImportable(f"{path} has no {attribute!r}", where, did_you_mean(attribute, known))
    return getattr(module, attribute)


def is_imported(name: str) -> bool:
    """Tell whether the module of `module:name` is imported already: nothing is run to find out."""
    return name.partition(":")[0] in sys.modules


def _module(path: str) -> ModuleType:
    """Import a module, with the working directory first on the search path."""
    folder = str(Path.cwd())
    added = folder not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, folder)
    found = None
    try:
        found = importlib.import_module(path)
        return found
    except (Exception, SystemExit) as error:  # it is the user's own code
        top = path.partition(".")[0]
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{path}.".startswith(f"{missing}."):
            beside = [each.stem for each in Path().glob("*.py")] + [each.parent.name for each in Path().glob("*/*.py")]
            fix = did_you_mean(top, beside) if missing == top else None
            fix = fix or f"run from the folder that holds {top}, or install the package"
            what = f"there is no module {missing!r}, neither in the working directory nor installed"
            raise NotImportable(what, path, fix) from error
        place = place_in_code_of_users(error)
        what = f"the module cannot be imported: {type(error).__name__}: {error}"
        raise NotImportable(f"{what} ({place})" if place else what, path, f"try `python -c 'import {path}'`") from error
    finally:
        if added and (found is None or _project_file(found) is None):
            sys.path.remove(folder)


def place_in_code_of_users(error: BaseException) -> str | None:
    """Return the last line of the user's own code that an error came through: `ops.py, line 3`; None without any.

    Packages that bring plug-ins are the user's own here, and those of plug-ins and networks that notes of the error
    name.

    Args:
        error: as it was caught.
    """
    brought = tuple(_brought(getattr(error, "__notes__", ())))
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if _is_of_project(frame.filename) or frame.filename.startswith(brought)
    ]
    return f"{_shown(Path(frames[-1].filename))}, line {frames[-1].lineno}" if frames else None


NOTED = re.compile(r"(?:operation|objective|filter|encoding|extra signal|source|network) ([^\W\d]\w*)[\w.]*:")
"""What a note begins with that names code `module:name` of a configuration; the group is the package."""


def _brought(notes: Iterable[str]) -> Iterator[str]:
    """The folders of installed packages that bring plug-ins, and the files of those that are one module."""
    groups = [group for group in entry_points().groups if group.startswith("decant.")]
    names = {each.module.partition(".")[0] for group in groups for each in entry_points(group=group)}
    names |= {found[1] for note in notes if (found := NOTED.match(note))}
    for name in names - set(OURS):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None:
            yield os.path.join(os.path.dirname(file), "") if file.endswith("__init__.py") else file  # noqa: PTH118, PTH120


def failure_of(error: BaseException) -> OwnCodeError | None:
    """Return what to tell of an error that came through the user's own code; None of one that did not.

    Args:
        error: with notes of what was being done (`pipeline.errors.during`).
    """
    place = place_in_code_of_users(error)
    if place is None:
        return None
    kind, how = type(error).__name__, "ended the program" if isinstance(error, SystemExit) else "failed"
    said = f"{kind}: {first_line(error)}" if str(error) else kind
    fix = "mend it, and run the same command again: what was finished is kept. `pipeline contract module:name` tries "
    fix += "a plug-in; `pipeline --traceback COMMAND` shows how it came there"
    return OwnCodeError(
        f"code of your own {how}: {said}", where=", ".join([place, *getattr(error, "__notes__", ())]), fix=fix
    )


def _shown(file: Path) -> Path:
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def _is_of_project(name: str) -> bool:
    """Whether a file lies below the working directory, and is neither Decant's nor of an installed package."""
    if not name.startswith(os.path.join(os.getcwd(), "")):  # noqa: PTH109, PTH118 - of thousands of modules
        return False
    file = Path(name)
    folder = Path.cwd()
    below, ours = file.relative_to(folder), Path(__file__).parents[1]
    installed = set(INSTALLED) & set(below.parts) or file.is_relative_to(Path(sys.prefix))
    return not installed and not any(file.is_relative_to(ours / name) for name in OURS)


def _project_file(module: ModuleType) -> Path | None:
    """The file of a module, if it is one of the user's own in the working directory."""
    file = getattr(module, "__file__", None)
    return Path(file) if file is not None and _is_of_project(file) else None


def imported_files() -> dict[str, Path]:
    """Return the files of all modules of the user's own that are imported by now, by the modules' names.

    Those are modules that lie below the working directory, and are neither Decant's nor installed.
    """
    below, found = os.path.join(os.getcwd(), ""), {}  # noqa: PTH109, PTH118 - of thousands of modules
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None and file.startswith(below) and name not in OURS and _is_of_project(file):
            found[name] = Path(file)
    return dict(sorted(found.items()))


def files_of(names: Iterable[str]) -> tuple[Path, ...]:
    """Return the user's own files that some code consists of, relative to the working directory: DVC depends on them.

    Returns the file of each module, and those that it imports; modules that are not imported by now, or are not below
    the working directory, are left out.

    Args:
        names: `module:name`, or the module alone.
    """
    found: dict[str, Path] = {}
    waiting = [parent for name in names for parent in _with_parents(name.partition(":")[0])]
    while waiting:
        module = waiting.pop()
        file = _project_file(sys.modules[module]) if module in sys.modules and module not in found else None
        if file is not None and module not in OURS:
            found[module] = file
            waiting += _imports(module, file)
    return tuple(sorted({file.relative_to(Path.cwd()) for file in found.values()}))


def _imports(module: str, file: Path) -> Iterator[str]:
    """The names of modules that a file may import; some are names of what a module holds."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if node.level else []
            base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
            for alias in node.names:
                yield from _with_parents(f"{base}.{alias.name}")


def _with_parents(module: str) -> list[str]:
    """A module and the packages that are imported before it."""
    parts = module.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]
