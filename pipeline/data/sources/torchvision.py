"""Reads any classification data set of torchvision, by the name of its class in `torchvision.datasets`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from pipeline.data.formats import UndecodableError
from pipeline.data.images import pixels
from pipeline.data.source import Item, SourceOptions, Unreadable
from pipeline.errors import DataError, did_you_mean, nearest

# What torchvision calls the splits that packed data sets have, in order of preference.
_SPLITS = {
    "train": ("train", "trainval", "train-standard"),
    "test": ("test",),
    "val": ("val", "valid"),
    "unlabeled": ("unlabeled",),
}
_OURS = frozenset(("root", "train", "download", "loader", "transform", "target_transform", "transforms"))


class Options(SourceOptions):
    """Declares which data set is read, and where its files are.

    Args:
        dataset: the class, such as `CIFAR100`.
        root: the folder for downloads; null for `decant/torchvision` in the user's cache folder.
        download: fetch what is missing, where the class can.
        splits: names of our splits to those of the class, such as `{train: extra}`; null for the usual ones.
        options: further arguments of the class, such as `{split: letters}` for EMNIST.
    """

    fetching: ClassVar[frozenset[str]] = frozenset(("root", "download"))

    name: Literal["torchvision"] = "torchvision"
    dataset: str
    root: Path | None = None
    download: bool = True
    splits: Mapping[str, str] | None = None
    options: Mapping[str, Any] = Field(default_factory=dict)


def open_source(options: Options) -> Torchvision:
    """Open the data set's splits, downloaded if need be.

    Args:
        options: of the source.

    Raises DataError for an unknown name or argument, files that cannot be had, or other data than one class
    per image.
    """
    return Torchvision(options)


class Torchvision:
    """Gives the splits that the constructor offers: `train=True` and `False`, the usual values of `split`, or one.

    Holds in memory what torchvision does: for small sets all images, else their paths.
    """

    def __init__(self, options: Options) -> None:
        self._name = options.dataset
        self._class = _find_class(options.dataset)
        self._parameters = _parameters(self._class)
        self._root = options.root.expanduser() if options.root else _cache_folder()
        self._download = options.download
        self._arguments = self._checked(options)
        self._sets = self._open(options)
        self.splits: Sequence[str] = tuple(self._sets)
        self.description = f"torchvision {self._name}"
        if len(self.splits) == 1:
            self.description += f" (one split, taken as {self.splits[0]})"
        self.class_names: Sequence[str] = self._class_names()

    def count(self, split: str) -> int:
        """Return the length of torchvision's data set for `split`."""
        return len(self._sets[split])

    def items(self, split: str) -> Iterator[Item]:
        """Yield the images of `split` in torchvision's order; the id is the position there.

        Files are passed as they are.
        """
        data = self._sets[split]
        for position in range(len(data)):
            name = f"{split}/{position:06d}"
            try:
                image, target = data[position]
                yield Item(image if isinstance(image, bytes) else pixels(image), self._label(target), name)
            except (OSError, SyntaxError, UndecodableError) as error:
                yield Item(Unreadable(str(error)), None, name)

    def _open(self, options: Options) -> dict[str, Any]:
        if "train" in self._parameters:
            return {split: self._construct(train=split == "train") for split in ("train", "test")}
        if "split" not in self._parameters or "split" in self._arguments:
            return {"train": self._construct()}
        if options.splits is not None:
            return {ours: self._construct(split=theirs) for ours, theirs in options.splits.items()}
        found = {}
        for ours, names in _SPLITS.items():
            for theirs in names:
                try:
                    found[ours] = self._construct(split=theirs)
                    break
                except _NoSuchSplitError:
                    continue
        if not found:
            fix = "name them: data.source.splits: {train: ...}"
            raise DataError(f"torchvision's {self._name} has none of the usual splits", fix=fix)
        return found

    def _construct(self, **selection: object) -> Any:
        arguments: dict[str, Any] = {**self._arguments, **selection}
        if "root" in self._parameters:
            self._root.mkdir(parents=True, exist_ok=True)
            arguments["root"] = str(self._root)
        if "download" in self._parameters:
            arguments["download"] = self._download
        if "loader" in self._parameters:
            arguments["loader"] = _read_file
        try:
            return self._class(**arguments)
        except ValueError as error:
            if "split" in selection and "split" in str(error):
                raise _NoSuchSplitError(
                    f"torchvision's {self._name} has no split {selection['split']!r}", got=error
                ) from None
            raise DataError(f"torchvision's {self._name} refused its arguments", got=error) from None
        except (OSError, RuntimeError, ImportError) as error:
            address = getattr(self._class, "url", None)  # where there is one file, its address
            files = address if isinstance(address, str) else "the files"
            raise DataError(
                f"torchvision could not provide {self._name}",
                where=self._root,
                got=f"{type(error).__name__}: {error}".strip(),
                fix=f"check the network, or put {files} there by hand (data.source.root)"
                if self._download
                else "set data.source.download: true, or correct data.source.root",
            ) from None

    def _checked(self, options: Options) -> dict[str, Any]:
        """The further arguments. Raises DataError for those that the class does not have or lacks."""
        known = [name for name in self._parameters if name not in _OURS]
        for name in options.options:
            if name not in known:
                raise DataError(
                    f"torchvision's {self._name} has no argument {name!r}",
                    where="data.source.options",
                    expected="one of " + ", ".join(known) if known else "no options",
                    fix=did_you_mean(name, known),
                )
        if options.splits is not None and ("train" in self._parameters or "split" not in self._parameters):
            expected = "no splits: the class does not take split names"
            raise DataError(f"the splits of {self._name} are fixed", where="data.source.splits", expected=expected)
        selected = () if "train" in self._parameters else ("split",)
        lacking = [
            name
            for name in known
            if self._parameters[name].default is inspect.Parameter.empty
            and name not in options.options
            and name not in selected
        ]
        if lacking:
            what = f"torchvision's {self._name} needs {', '.join(lacking)}"
            raise DataError(what, where="data.source.options", fix=f"add {lacking[0]}: ...")
        return dict(options.options)

    def _class_names(self) -> tuple[str, ...]:
        """From the class; else numbers up to the largest label, read from the samples if need be."""
        first = next(iter(self._sets.values()))
        for attribute in ("classes", "categories"):
            names = getattr(first, attribute, None)
            if isinstance(names, (list, tuple)):
                return tuple(", ".join(n) if isinstance(n, (list, tuple)) else str(n) for n in names)
        largest = -1
        for split, data in self._sets.items():
            targets = getattr(data, "targets", getattr(data, "labels", None))
            if targets is None:
                targets = (item.label for item in self.items(split))
            largest = max((largest, *(label for t in targets if (label := self._label(t)) is not None)))
        return tuple(str(k) for k in range(largest + 1))

    def _label(self, target: Any) -> int | None:
        """The class of a sample; None for no label, which torchvision writes as None or -1."""
        if target is None:
            return None
        if isinstance(target, bool) or np.ndim(target) != 0 or not np.issubdtype(np.asarray(target).dtype, np.integer):
            raise DataError(
                f"torchvision's {self._name} is not a set of one class per image",
                expected="an integer for every image",
                got=type(target).__name__,
            )
        return int(target) if int(target) >= 0 else None


class _NoSuchSplitError(DataError):
    pass


def _find_class(name: str) -> Any:
    from torchvision import datasets  # takes seconds: only who packs from torchvision waits for it

    bases = (datasets.VisionDataset, datasets.DatasetFolder, datasets.ImageFolder)
    every = {n: getattr(datasets, n) for n in datasets.__all__}
    known = {n: c for n, c in every.items() if inspect.isclass(c) and issubclass(c, bases[0]) and c not in bases}
    if name not in known:
        plain = {n.lower(): n for n in known}
        meant = nearest(name.lower().replace("_", "").replace("-", ""), plain)
        close = plain[meant] if meant else None
        raise DataError(
            f"torchvision has no data set {name!r}",
            where="data.source.dataset",
            expected="one of " + ", ".join(sorted(known)),
            fix=f"did you mean {close!r}?" if close else None,
        )
    return known[name]


def _parameters(kind: Any) -> dict[str, inspect.Parameter]:
    """The arguments of a class, with those that it passes on to its bases by `**kwargs`."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        own = list(inspect.signature(base.__init__).parameters.values())[1:]
        passes_on = [p for p in own if p.kind is p.VAR_KEYWORD]
        for parameter in own:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, parameter)
        if not passes_on:
            break
    return found


def _read_file(path: str) -> bytes:
    return Path(path).read_bytes()


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "decant" / "torchvision"
