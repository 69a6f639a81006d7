"""Reads a folder of images whose names hold their labels, such as `great_pyrenees_12.jpg`."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import field_validator

from pipeline.data.source import SourceOptions
from pipeline.data.sources._entries import SPLITS, UNLABELED, ImageFiles, meaning
from pipeline.data.sources._lists import LabelRow, read_label_rows, split_called
from pipeline.data.sources._tree import read_tree
from pipeline.errors import DataError

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Options(SourceOptions):
    """Declares which folder is read, and how the names are read.

    Args:
        path: the folder.
        pattern: `{label}_{id}.jpg`, where every field is any text without a slash, as long as it can be from the left;
            or a regular expression with a group `(?P<label>...)`. It fits the whole name of a file, or, if there is a
            slash in it, its path below the folder. A field or group `split` says the split; else a folder called
            `train`, `test` or `val` at the top does, and without one all are `train`.
        class_names: a file of the names of the classes, in the order of the labels; null for the labels of train,
            sorted.
    """

    name: Literal["file-names"] = "file-names"
    path: Path
    pattern: str
    class_names: Path | None = None

    @field_validator("pattern")
    @classmethod
    def _has_a_label(cls, pattern: str) -> str:
        try:
            groups = compiled(pattern).groupindex
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        if "label" not in groups:
            raise ValueError("has no {label}, as in {label}_{id}.jpg, and no group (?P<label>...)")
        return pattern

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the folder, and the file of names."""
        return (self.path, *([self.class_names] if self.class_names else []))


def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern to a regular expression. Raises re.error."""
    if "(?P<" in pattern:
        return re.compile(pattern)
    parts = _FIELD.split(pattern)
    text = "".join(
        re.escape(part) if number % 2 == 0 else f"(?P<{part}>[^/]+)" if part in ("label", "split") else "[^/]+"
        for number, part in enumerate(parts)
    )
    return re.compile(text)


def open_source(options: Options) -> ImageFiles:
    """Open the images of the folder, in the order of their paths; those whose name does not fit are unreadable.

    Args:
        options: of the source.
    """
    root = options.path.expanduser()
    tree, pattern = read_tree(root), compiled(options.pattern)
    whole = "/" in options.pattern
    rows = []
    for path in tree.all_images():
        place = PurePosixPath(path)
        top = meaning(place.parts[0]) if len(place.parts) > 1 else None
        match = pattern.fullmatch(path if whole else place.name)
        if top == UNLABELED:
            rows.append(LabelRow(UNLABELED, path, ""))
        elif match is None:
            rows.append(LabelRow(top or "train", path, "", "its name does not fit the pattern"))
        else:
            found = match.groupdict()
            named = found.get("split")
            rows.append(LabelRow(split_called(named, path) if named else top or "train", path, found["label"] or ""))
    if not rows:
        raise DataError("there are no image files", where=root, expected="files with a suffix of images")
    order = {split: number for number, split in enumerate(SPLITS)}
    rows.sort(key=lambda row: order[row.split])
    return read_label_rows(root, rows, options.class_names, f"labels in names like {options.pattern}", tree)
