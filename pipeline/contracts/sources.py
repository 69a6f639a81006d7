"""Tries what every data source must keep, on one source."""

from __future__ import annotations

import json

import numpy as np

from pipeline import plugins
from pipeline.config import resolved
from pipeline.contracts.checks import NotTried
from pipeline.data import SourceOptions, Unreadable, open_source
from pipeline.data.images import has_channels_last
from pipeline.data.source import SOURCE_PACKAGE
from pipeline.errors import ConfigError, DataError


class SourceContract:
    """Holds the checks of one source.

    Args:
        options: of the source.
    """

    def __init__(self, options: SourceOptions) -> None:
        self._options = options

    def options_are_read_back_as_they_were_written(self) -> None:
        """Write options and identity as JSON, and read them back."""
        text = json.dumps(resolved(self._options))
        again = plugins.choose_at("data.source", SOURCE_PACKAGE, json.loads(text)).options
        assert again == self._options, "options that are written and read again are others"
        identity = self._options.identity()
        assert json.loads(json.dumps(identity)) == identity, "the identity is no plain JSON"
        assert identity["name"] == self._options.name, "the identity has another name"

    def unknown_options_are_refused(self) -> None:
        """Set an option that does not exist."""
        wrong, keys = {**resolved(self._options), "no_such_option": 1}, list[str]()
        try:
            plugins.choose_at("data.source", SOURCE_PACKAGE, wrong)
        except ConfigError as error:
            keys = [problem.key for problem in error.problems]
        assert "data.source.no_such_option" in keys, "an unknown option is not refused"

    def every_split_has_the_items_that_it_counts(self) -> None:
        """Read all items of every split."""
        source = open_source(self._options)
        assert source.splits, "there is no split"
        assert len(set(source.splits)) == len(source.splits), "two splits have one name"
        assert len(set(source.class_names)) == len(source.class_names), "two classes have one name"
        for split in source.splits:
            ids = dict[str, None]()
            for item in source.items(split):
                where = f"item {item.id!r} of split {split!r}"
                assert item.id not in ids, f"{where} is there twice"
                ids[item.id] = None
                known = item.label is None or -1 <= item.label < len(source.class_names)
                assert known, f"{where} has the label {item.label}, of {len(source.class_names)} classes"
                image = item.image
                if isinstance(image, np.ndarray):
                    right = image.dtype == np.uint8 and image.ndim == 3 and has_channels_last(*image.shape)
                    assert right, f"{where} is {image.dtype} {list(image.shape)}, not uint8 [H, W, C]"
                else:
                    assert isinstance(image, bytes | Unreadable), f"{where} is of type {type(image).__name__}"
            counted = source.count(split)
            assert counted == len(ids), f"split {split!r} counts {counted} items, and has {len(ids)}"

    def items_come_in_the_same_order_again(self) -> None:
        """Read every split twice, also of a source that is opened again."""
        first, second = open_source(self._options), open_source(self._options)
        for split in first.splits:
            for one, other in ((first, first), (first, second)):
                for a, b in zip(one.items(split), other.items(split), strict=True):
                    same = a[1:] == b[1:] and np.array_equal(a.image, b.image)
                    assert same, f"item {a.id!r} of split {split!r} is another when it is read again: {b.id!r}"

    def it_says_in_one_line_what_it_is_without_a_path_of_this_machine(self) -> None:
        """Read its description."""
        description = open_source(self._options).description
        assert description, "there is no description"
        assert "\n" not in description, "the description has several lines"
        named = [str(file.parent) for file in self._options.files if str(file.parent) in description]
        assert not [name for name in named if name != "."], f"the description has the folder {named[:1]}"

    def what_is_not_there_is_refused(self) -> None:
        """Open another file or folder, which does not exist."""
        local, refused = self._options.local, False
        if local is None:
            raise NotTried("it reads no file of this machine")
        try:
            open_source(self._options.model_copy(update={"path": local.with_name("nowhere")}))
        except DataError:
            refused = True
        assert refused, "a path that does not exist is not refused with DataError"
