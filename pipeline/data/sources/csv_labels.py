"""Reads a folder of images and a table (CSV) with a row for each: path, label and, if there is such a column, split."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.data.source import SourceOptions
from pipeline.data.sources._entries import ImageFiles
from pipeline.data.sources._lists import LabelRow, read_label_rows, read_text, split_called
from pipeline.errors import DataError, nearest

_DELIMITERS = ",;\t|:"


class Options(SourceOptions):
    """Declares where the images and the table are, and what its columns are called.

    Args:
        path: the folder; the paths in the table are relative to it.
        labels: the table, with a first line of titles.
        delimiter: of columns; null finds it.
        path_column, label_column: their titles.
        split_column: used where there is such a column; else all images are `train`.
        class_names: a file of the names of the classes, in the order of the labels; null for the labels of train,
            sorted.
    """

    name: Literal["csv-labels"] = "csv-labels"
    path: Path
    labels: Path
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    path_column: str = "path"
    label_column: str = "label"
    split_column: str = "split"
    class_names: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the folder, the table, and the file of names."""
        return (self.path, self.labels, *([self.class_names] if self.class_names else []))


def open_source(options: Options) -> ImageFiles:
    """Open the images that the table names, in its order. Raises DataError if it cannot be read or lacks a column.

    Args:
        options: of the source.
    """
    rows = _rows(options, read_text(options.labels, "the table of labels"))
    return read_label_rows(options.path.expanduser(), rows, options.class_names, f"labels in {options.labels.name}")


def _rows(options: Options, text: str) -> list[LabelRow]:
    wanted = [options.path_column, options.label_column]
    if options.split_column != "split":
        wanted.append(options.split_column)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=options.delimiter or _delimiter(text, wanted))
    try:
        titles = [title.strip() for title in next(table, [])]
        missing = [title for title in wanted if title not in titles]
        if missing:
            close = nearest(missing[0], titles)
            raise DataError(
                f"the table of labels has no column {missing[0]!r}",
                where=options.labels,
                expected="titles in the first line, among them " + ", ".join(wanted),
                got=", ".join(titles) or "an empty file",
                fix="name the columns: path_column, label_column and split_column in data.source"
                + (f"; did you mean {close!r}?" if close else ""),
            )
        place = {title: column for column, title in enumerate(titles)}
        return [_row(options, cells, place, table.line_num) for cells in table if any(map(str.strip, cells))]
    except csv.Error as error:
        where = f"{options.labels}, line {table.line_num}"
        raise DataError("the table of labels cannot be read", where=where, got=error) from None


def _row(options: Options, cells: list[str], place: dict[str, int], line: int) -> LabelRow:
    def cell(title: str) -> str:
        return cells[place[title]].strip() if place[title] < len(cells) else ""

    where = f"line {line}"
    path, label = cell(options.path_column), cell(options.label_column)
    if not path:
        raise DataError("a row of the table of labels has no path", where=f"{options.labels}, {where}")
    split = "train"
    if options.split_column in place:
        split = split_called(cell(options.split_column), f"{options.labels}, {where}")
    return LabelRow(split, path, label, where)


def _delimiter(text: str, titles: list[str]) -> str:
    """The one by which the first line has the titles; else what csv.Sniffer believes, so that they can be shown."""
    first = text.partition("\n")[0].rstrip("\r")
    for delimiter in _DELIMITERS:
        cells = [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])]
        if all(title in cells for title in titles):
            return delimiter
    try:
        return csv.Sniffer().sniff(text[: 1 << 16]).delimiter
    except csv.Error:
        return ","
