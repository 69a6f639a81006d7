"""Reads a folder of images and a text file for each split, with a line for each image: its path and its label.

As ImageNet (`ILSVRC2012_val_00000001.JPEG 65`) and Food-101 (`apple_pie/1005649`: the folder is the label) have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import field_validator

from pipeline.data.images import readable_suffixes
from pipeline.data.source import SourceOptions
from pipeline.data.sources._entries import SPLITS, UNLABELED, ImageFiles
from pipeline.data.sources._lists import LabelRow, read_label_rows, read_text
from pipeline.errors import DataError


class Options(SourceOptions):
    """Declares where the images and the lists are.

    Args:
        path: the folder; the paths in the lists are relative to it.
        lists: the file of each split, such as `{train: train.txt, test: test.txt}`. A line is a path and a label, with
            a tab, a comma or a space between; where no line has a label, it is the folder in which the image lies.
        class_names: a file of the names of the classes, in the order of the labels; null for the labels of train,
            sorted.
    """

    name: Literal["split-files"] = "split-files"
    path: Path
    lists: Mapping[str, Path]
    class_names: Path | None = None

    @field_validator("lists")
    @classmethod
    def _known_splits(cls, lists: Mapping[str, Any]) -> Mapping[str, Any]:
        if not lists or set(lists) - set(SPLITS):
            raise ValueError(f"names the file of some of {', '.join(SPLITS)}: {{train: FILE, test: FILE}}")
        return lists

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the folder, the lists, and the file of names."""
        return (self.path, *self.lists.values(), *([self.class_names] if self.class_names else []))


def open_source(options: Options) -> ImageFiles:
    """Open the images that the lists name, in their order. Raises DataError if a list cannot be read or is empty.

    Args:
        options: of the source.
    """
    rows: list[LabelRow] = []
    for split, path in options.lists.items():
        lines = read_text(path, f"the list of split {split}").splitlines()
        found = _rows(
            split, [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()], path.name
        )
        if not found:
            raise DataError(f"the list of split {split} is empty", where=path, expected="lines of a path and a label")
        rows += found
    root = options.path.expanduser()
    return read_label_rows(
        root, rows, options.class_names, f"lists {', '.join(path.name for path in options.lists.values())}"
    )


def _rows(split: str, lines: list[tuple[int, str]], file: str) -> list[LabelRow]:
    """One delimiter for a file: a tab or comma if every line has it, else the last space."""
    texts = [text for _, text in lines]
    delimiter = next((sign for sign in "\t," if all(sign in text for text in texts)), None)
    parted = [text.rsplit(delimiter, 1) for text in texts]
    suffixes = readable_suffixes()
    whole = [len(parts) == 1 or PurePosixPath(parts[1]).suffix.lower() in suffixes for parts in parted]
    alone = all(whole)  # the paths may have spaces in them
    rows = []
    for (number, text), parts, no_label in zip(lines, parted, whole, strict=True):
        where = f"{file} line {number}"
        if split == UNLABELED or alone:
            path, label = text, PurePosixPath(text.replace("\\", "/")).parent.name
        elif no_label:
            path, label = text, ""
        else:
            path, label = parts[0], parts[1].strip()
        rows.append(LabelRow(split, path, label, where))
    return rows
