"""Finds out which folders of an image folder are splits and which are classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.data.sources._entries import SPLITS, UNLABELED, meaning, some
from pipeline.data.sources._tree import Folder
from pipeline.errors import DataError, did_you_mean

Classes = Literal["leaf", "top"]


@dataclass
class FolderLayout:
    """Describes how a tree was understood.

    Args:
        labeled: of every split the folders of its classes, in order.
        unlabeled: the folder of images without labels, if there is one.
        places: of every split, the folders that are it.
        aside: folders beside the splits that are none.
        classes_first: whether every class has its splits, instead of every split its classes.
    """

    labeled: dict[str, dict[str, list[Folder]]] = field(default_factory=dict)
    unlabeled: Folder | None = None
    places: dict[str, list[Folder]] = field(default_factory=dict)
    aside: list[Folder] = field(default_factory=list)
    classes_first: bool = False


def understand(tree: Folder, where: Path, splits: Mapping[str, str] | None) -> FolderLayout:
    """Find the splits of a folder.

    Args:
        tree: the folder.
        where: its path, for errors.
        splits: the folder of each, if the configuration names them; then nothing is guessed.

    Raises DataError where a guess could be wrong.
    """
    layout = FolderLayout()
    if splits is not None:
        _as_configured(tree, where, splits, layout)
    elif any(meaning(folder.name) for folder in tree.folders):
        _splits_first(tree, where, layout)
    elif any(meaning(inner.name) for folder in tree.folders for inner in folder.folders):
        _classes_first(tree, where, layout)
    else:
        layout.places["train"] = [tree]
        layout.labeled["train"] = {folder.name: [folder] for folder in tree.folders}
    layout.labeled = {split: layout.labeled[split] for split in SPLITS if split in layout.labeled}
    if splits is None:
        _refuse_splits_below(layout, where)
    return layout


def _as_configured(tree: Folder, where: Path, splits: Mapping[str, str], layout: FolderLayout) -> None:
    known = {folder.path: folder for folder in tree.walk()}
    named = {}
    for split, path in splits.items():
        place = "" if Path(path) == Path() else Path(path).as_posix()
        if place not in known:
            what = f"there is no folder for split {split!r}"
            fix = did_you_mean(place, known)
            raise DataError(what, where=where, expected="a folder, relative to this one", got=path, fix=fix)
        named[split] = known[place]
    for split, folder in named.items():
        others = [other.path for other in named.values() if other is not folder]
        layout.places[split] = [folder]
        if split == UNLABELED:
            layout.unlabeled = folder
            continue
        inner = [each for each in folder.folders if not any(f"{path}/".startswith(f"{each.path}/") for path in others)]
        layout.labeled[split] = {each.name: [each] for each in inner}


def _splits_first(tree: Folder, where: Path, layout: FolderLayout) -> None:
    """`root/train/cat`, and `root/data/train/cat` inside a folder that is called like a split."""
    for split, folder in _split_folders(tree, where):
        layout.places.setdefault(split, []).append(folder)
    for split, folders in layout.places.items():
        if len(folders) > 1:
            got = some([folder.path for folder in folders])
            fix = f"keep one of them, or say which: splits: {{{split}: {folders[0].path}, ...}} in data.source"
            raise DataError(f"{len(folders)} folders mean the split {split}", where=where, got=got, fix=fix)
        if split == UNLABELED:
            layout.unlabeled = folders[0]
        else:
            layout.labeled[split] = {folder.name: [folder] for folder in folders[0].folders}
    layout.aside = [folder for folder in tree.folders if not meaning(folder.name)]
    strangers = [folder.name for folder in layout.aside if folder.holds_images()]
    if strangers and "train" not in layout.places:
        called = [folder.name for folder in tree.folders if meaning(folder.name)]
        _refuse_mixture(f"{some(called)} beside {some(strangers)}", where)


def _split_folders(parent: Folder, where: Path) -> Iterator[tuple[str, Folder]]:
    """(split, folder) of the folders that are called like splits; a split made of splits is only a cover."""
    for folder in parent.folders:
        split = meaning(folder.name)
        if split is None:
            continue
        inner = [each for each in folder.folders if each.holds_images()]
        named = [each for each in inner if meaning(each.name)] if split != UNLABELED else []
        if named and (len(named) < len(inner) or folder.images):
            others = [each.path for each in inner if not meaning(each.name)] or folder.images
            _refuse_mixture(f"{some([each.path for each in named])} beside {some(others)}", where)
        if named:
            yield from _split_folders(folder, where)
        else:
            yield split, folder


def _classes_first(tree: Folder, where: Path, layout: FolderLayout) -> None:
    """`root/cat/train`: every class has its splits."""
    classes = [folder for folder in tree.folders if folder.holds_images()]
    layout.classes_first = True
    for folder in classes:
        inner = [each for each in folder.folders if each.holds_images()]
        others = [each.path for each in inner if not meaning(each.name)] or folder.images
        if others or not inner:
            named = [g.path for f in classes for g in f.folders if meaning(g.name)]
            _refuse_mixture(f"{some(named)} beside {some(others)}", where)
    if len(classes) == 1:
        fix = f"name the folder that holds the splits: data.source.path: .../{classes[0].name}"
        what = "the splits lie one folder deeper, beside no other class"
        raise DataError(what, where=where, got=some([each.path for each in classes[0].folders]), fix=fix)
    for folder in classes:
        seen: dict[str, str] = {}
        for each in folder.folders:
            split = meaning(each.name)
            if split is None:
                continue
            if split in seen:
                what = f"2 folders of one class mean the split {split}"
                raise DataError(what, where=where, got=some([seen[split], each.path]), fix="put them together")
            seen[split] = each.path
            layout.places.setdefault(split, []).append(each)
            if split != UNLABELED:
                layout.labeled.setdefault(split, {})[folder.name] = [each]
    if UNLABELED in layout.places:
        unlabeled = layout.places[UNLABELED]
        layout.unlabeled = Folder(UNLABELED, "", folders=unlabeled)


def _refuse_splits_below(layout: FolderLayout, where: Path) -> None:
    """Folders called like splits below class folders: the test images of a class would be learnt from."""
    found = [
        below.path
        for classes in layout.labeled.values()
        for folders in classes.values()
        for folder in folders
        for below in folder.walk()
        if below is not folder and meaning(below.name) not in (None, UNLABELED) and below.holds_images()
    ]
    if found:
        _refuse_mixture(f"{some(found)} below class folders", where)


def _refuse_mixture(got: str, where: Path) -> None:
    raise DataError(
        "folders are called like splits where others are not: they could be splits or classes",
        where=where,
        expected="splits of class folders, or class folders of splits, all alike",
        got=got,
        fix="move them, or say which folders are splits: splits: {train: FOLDER, test: FOLDER} in data.source "
        "(a dot is the folder itself); folders below are then classes, whatever they are called",
    )


def classes_of(layout: FolderLayout, where: Path, wanted: Classes | None) -> None:
    """Choose the top folders or the leaves as the classes of every split.

    Args:
        layout: of the folder.
        where: its path, for errors.
        wanted: the choice of the configuration; None if there is none.

    Raises DataError if the configuration must choose: that is where a top folder has several folders with images below
    it. One with a single such folder, as `cat/images`, is a class by either reading.
    """
    if wanted == "top":
        return
    nested = [
        name
        for classes in layout.labeled.values()
        for name, folders in classes.items()
        for folder in folders
        if sum(bool(below.images) for below in folder.walk() if below is not folder) > 1
    ]
    if wanted is None and not nested:
        return
    leaves = {split: _leaves(classes, where if wanted else None) for split, classes in layout.labeled.items()}
    if wanted is None:
        raise DataError(
            "class folders lie in folders: which of them are the classes?" + _readings(layout.labeled, leaves),
            where=where,
            got=f"several folders of images in {some(sorted(set(nested)))}",
            fix="write classes: leaf, or classes: top, in data.source",
        )
    layout.labeled = leaves


def _leaves(classes: Mapping[str, list[Folder]], where: Path | None) -> dict[str, list[Folder]]:
    """The folders without folders, by their paths below the split. where: None for no complaints."""
    leaves: dict[str, list[Folder]] = {}
    for name, folders in classes.items():
        for top in folders:
            for folder in top.walk():
                path = name + folder.path.removeprefix(top.path)
                if folder.folders and folder.images and where is not None:
                    what = "images lie beside folders of images: with classes: leaf they have no class"
                    fix = "move them to a class folder, or set classes: top"
                    raise DataError(what, where=where, got=some(folder.images), fix=fix)
                if not folder.folders:
                    leaves.setdefault(path, []).append(folder)
    return dict(sorted(leaves.items()))


def _readings(top: Mapping[str, Mapping[str, list[Folder]]], leaves: Mapping[str, Mapping[str, list[Folder]]]) -> str:
    """Both readings, with counts."""
    lines = []
    for word, reading in (("top", top), ("leaf", leaves)):
        names = sorted({name for classes in reading.values() for name in classes})
        counts = ", ".join(f"{split} {len(classes)}" for split, classes in reading.items())
        lines.append(f"\n  - classes: {word} gives {len(names)} classes ({counts}): {some(names)}")
    return "".join(lines)
