"""Reads a folder of image files: `root/<split>/<class>/...`, `root/<class>/<split>/...`, or `root/<class>/...`.

Splits are `train`, `test`, `val` (folders of class folders) and `unlabeled` (any files below it), under any of their
usual names: `training`, `testing`, `valid`, `validation`, `dev`, in capitals or small letters. Without them, all is
`train`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import field_validator

from pipeline.data.class_names import read_class_names
from pipeline.data.source import Reading, SourceOptions, is_text
from pipeline.data.sources._entries import SPLITS, UNLABELED, Entry, ImageFiles, escaped, some
from pipeline.data.sources._layout import Classes, FolderLayout, classes_of, understand
from pipeline.data.sources._tree import Folder, read_tree
from pipeline.errors import DataError, did_you_mean


class Options(SourceOptions):
    """Declares which folder is read, and how it is understood if there are several ways.

    Args:
        path: the folder.
        classes: where class folders lie in folders: `top` takes the folders in a split for the classes, `leaf` the
            innermost ones.
        splits: the folder of each split, such as `{train: images/a, test: held}`; null for the usual names.
        class_names: a file with the names of the classes in the order of the labels (one in each line, or a JSON list),
            such as that of the teacher; null for the folders of train, sorted.
    """

    later: ClassVar[frozenset[str]] = frozenset(("classes", "splits", "class_names"))

    name: Literal["image-folder"] = "image-folder"
    path: Path
    classes: Classes | None = None
    splits: Mapping[str, str] | None = None
    class_names: Path | None = None

    @field_validator("splits")
    @classmethod
    def _some_splits(cls, splits: Mapping[str, str] | None) -> Mapping[str, str] | None:
        if splits is not None and (not splits or set(splits) - set(SPLITS) or len({*splits.values()}) < len(splits)):
            known = ", ".join(SPLITS)
            raise ValueError(f"names a folder of its own for some of {known}, such as {{train: images/a, test: held}}")
        return splits

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the folder, and the file of names."""
        return (self.path,) if self.class_names is None else (self.path, self.class_names)


def open_source(options: Options) -> ImageFiles:
    """Open the folder's files, in the order of their paths, which, relative to the root, are the ids.

    Args:
        options: of the source.

    Files without the suffix of an image format are left out, and counted; hidden ones are not counted. The classes are
    the folders of `train`, sorted (without `train`, those of all splits), or those of `class_names`.

    Raises DataError if there is no folder, no image, or a class that train lacks, and where two readings are possible.
    """
    root = options.path.expanduser()
    tree = read_tree(root)
    layout = understand(tree, root, options.splits)
    classes_of(layout, root, options.classes)
    names = _class_names(layout, root, options.class_names)
    entries: dict[str, list[Entry]] = {}
    numbers = {name: label for label, name in enumerate(names)}
    for split, classes in layout.labeled.items():
        entries[split] = [
            Entry(image, numbers[name])
            for name, folders in classes.items()
            for folder in folders
            for image in folder.all_images()
        ]
    if layout.unlabeled is not None:
        entries[UNLABELED] = [Entry(image, None) for image in layout.unlabeled.all_images()]
    entries = {split: entries[split] for split in SPLITS if split in entries}
    loose = _loose(tree, layout, entries)
    _refuse_empty(entries, loose, root)
    reading = Reading(tree.others_below(), tuple(_notes(layout, tree, names, loose)))
    return ImageFiles(root, names, entries, _description(root, layout), reading)


def _class_names(layout: FolderLayout, root: Path, path: Path | None) -> tuple[str, ...]:
    """The names of the classes. Raises DataError for folders with images that are none of them."""
    everything = sorted({name for classes in layout.labeled.values() for name in classes})
    if odd := [name for name in everything if not is_text(name)]:
        raise DataError("names of class folders are not UTF-8 text", where=root, got=some(odd), fix="rename them")
    names = read_class_names(path) if path else tuple(sorted(layout.labeled.get("train") or everything))
    known = frozenset(names)
    for split, classes in layout.labeled.items():
        strange = [name for name in classes if name not in known and any(f.holds_images() for f in classes[name])]
        if strange:
            what = f"split {split!r} has classes that {path.name if path else 'train'} lacks"
            raise DataError(
                what,
                where=root if len(layout.places[split]) > 1 else root / layout.places[split][0].path,
                expected="class folders with the names " + (f"in {path}" if path else "of those in train"),
                got=some(strange, 20),
                fix=did_you_mean(strange[0], names),
            )
        layout.labeled[split] = {name: folders for name, folders in classes.items() if name in known}
    return names


def _loose(tree: Folder, layout: FolderLayout, entries: Mapping[str, list[Entry]]) -> list[str]:
    """The images that are in no class folder, nor in a folder that was left out as a whole."""
    taken = {entry.name for some in entries.values() for entry in some}
    taken.update(image for folder in layout.aside for image in folder.all_images())
    return [image for image in tree.all_images() if image not in taken]


def _refuse_empty(entries: Mapping[str, list[Entry]], loose: list[str], root: Path) -> None:
    empty = [split for split in entries if not entries[split]]
    if not empty:
        return
    got = fix = None
    if loose:
        got = f"{len(loose):,} images in no class folder: {some(loose, 2)}"
        fix = (
            "put each into a folder of its class, or all into a folder unlabeled, or name a source of labels: "
            "csv-labels, split-files, file-names"
        )
    expected = "<class>/<file> or, in unlabeled, files, with a suffix of images"
    what = f"split {', '.join(empty)} has no image files"
    raise DataError(what, where=root, expected=expected, got=got, fix=fix)


def _description(root: Path, layout: FolderLayout) -> str:
    """One line: how the folder was understood."""
    text = f"image folder {root.resolve().name}"
    if layout.aside:
        text += f" (not a split, left out: {', '.join(escaped(folder.name) for folder in layout.aside)})"
    if [folder.path for folder in layout.places.get("train", ())] == [""] and len(layout.places) == 1:
        text += " (its folders taken as the classes of split train)"
    other = [
        f"{', '.join(sorted({_called(folder, layout) for folder in folders}))} as {split}"
        for split, folders in layout.places.items()
        if any(folder.path not in ("", split) for folder in folders)
    ]
    return text + (f" (read {'; '.join(other)})" if other else "")


def _called(folder: Folder, layout: FolderLayout) -> str:
    return escaped(f"*/{folder.name}" if layout.classes_first else folder.path)


def _notes(layout: FolderLayout, tree: Folder, names: tuple[str, ...], loose: list[str]) -> list[str]:
    """What a person should know of how the folder was understood."""
    notes = []
    for folder in layout.aside:
        if images := folder.all_images():
            notes.append(f"not a split, left out: {escaped(folder.name)}, with {len(images):,} images")
    if loose:
        notes.append(f"in no class folder, left out: {len(loose):,} images ({some(loose, 3)})")
    links = [link for folder in tree.walk() for link in folder.links]
    if links:
        notes.append(f"links to folders, not followed: {some(links)}")
    small = Counter(name.casefold() for name in names)
    if alike := [name for name in names if small[name.casefold()] > 1]:
        notes.append(f"classes that differ in capitals alone: {some(alike)}")
    return notes
