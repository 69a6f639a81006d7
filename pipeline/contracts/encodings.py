"""Tries what every encoding must keep, on one encoding."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import plugins
from pipeline.contracts.checks import NotTried
from pipeline.errors import ConfigError
from pipeline.plugins import NoOptions
from pipeline.store.encodings import ENCODINGS, Encoding, EncodingOverflow, load_encoding, resolved_encoding
from pipeline.store.format.arrays import ArraySpec

Values = NDArray[np.float32]

TRIED_SIGNALS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("logits", (5,)),
    ("logits", (64,)),
    ("embedding", (7,)),
    ("features/block1", (3, 2, 2)),
    ("features/block2", (4, 1, 3)),
    ("extras/gram/block2", (4, 4)),
)
"""Signals that encodings are tried on, with the shape of one view."""

LARGEST = float(np.finfo(np.float32).max)


class EncodingContract:
    """Holds the checks of one encoding.

    Args:
        encoding: `{name, **options}`.
    """

    def __init__(self, encoding: Mapping[str, Any]) -> None:
        self._encoding = dict(encoding)
        module = plugins.load(ENCODINGS, self._encoding["name"], "name")
        self._options = getattr(module, "Options", NoOptions)
        self._signals = [each for each in TRIED_SIGNALS if each[0].partition("/")[0] in module.SIGNALS]

    def _each(self) -> Iterator[tuple[Encoding, tuple[int, ...]]]:
        """Yield the encoding of every signal that it can write, and the signal's shape."""
        assert self._signals, "SIGNALS has none of logits, embedding, features, extras"
        for signal, shape in self._signals:
            yield load_encoding(self._encoding, signal, shape), shape

    def options_are_read_back_as_they_were_written(self) -> None:
        """Write the identity as JSON, and read it back."""
        kind = self._signals[0][0].partition("/")[0]
        identity = resolved_encoding(self._encoding, kind)
        assert json.loads(json.dumps(identity)) == identity, "the identity is no plain JSON"
        assert resolved_encoding(identity, kind) == identity, "options that are written and read again are others"
        fields = set(self._options.model_fields)
        written = set() if isinstance(identity, str) else set(identity) - {"name"}
        assert written == fields, "an option is missing in the identity"

    def unknown_options_are_refused(self) -> None:
        """Set an option that does not exist."""
        kind, keys = self._signals[0][0].partition("/")[0], list[str]()
        try:
            resolved_encoding({**self._encoding, "no_such_option": 1}, kind)
        except ConfigError as error:
            keys = [problem.key for problem in error.problems]
        assert keys == [f"signals.{kind}.encoding.no_such_option"], "an unknown option is not refused"

    def what_comes_back_is_within_the_bound(self) -> None:
        """Write and read values of many magnitudes."""
        for encoding, shape in self._each():
            for values in _values(shape):
                require_within_bound(encoding, values)

    def rows_are_encoded_one_by_one(self) -> None:
        """Write rows together, and each alone."""
        for encoding, shape in self._each():
            for values in _values(shape):
                if refused(encoding, values) is None:
                    require_rows_alone(encoding, values)

    def parts_are_as_declared(self) -> None:
        """Write values, and look at what is written."""
        for encoding, shape in self._each():
            assert "" in encoding.parts, 'there is no main part, ""'
            made = encoding.encode(np.ones((7, *shape), np.float32))
            found = {part: (array.dtype, array.shape[1:]) for part, array in made.items()}
            assert found == encoding.parts, f"parts are {found}, and {encoding.parts} are declared"
            for dtype, part_shape in encoding.parts.values():
                assert dtype.str[0] in "<|", (
                    f"the type {dtype.str} says no order of bytes, or another than the least first"
                )
                assert prod(part_shape) > 0, "a part is empty"

    def what_is_written_is_never_said_to_be_damaged(self) -> None:
        """Look for damage in what was written."""
        for encoding, shape in self._each():
            for values in _values(shape):
                if refused(encoding, values) is None:
                    require_undamaged(encoding, values)

    def rows_that_nobody_wrote_are_told(self) -> None:
        """Look for damage where a part holds its fill value, wholly or in the last place of a row alone."""
        for encoding, shape in self._each():
            for part, written in encoding.encode(np.ones((3, *shape), np.float32)).items():
                rows = written.reshape(3, -1).copy()
                rows[0] = rows[1, -1] = ArraySpec(part, rows.dtype, rows.shape, rows.shape, ()).fill
                found = encoding.impossible_rows(part, rows.reshape(written.shape)).tolist()
                assert found == [True, True, False], (
                    f"of part {part!r}: {found}, where the first two were never written"
                )

    def a_batch_may_be_empty(self) -> None:
        """Write and read no rows."""
        for encoding, shape in self._each():
            back = decoded(encoding, np.empty((0, *shape), np.float32))
            assert back.shape == (0, *shape), f"no rows come back as {list(back.shape)}"

    def values_are_not_changed(self) -> None:
        """Compare values before and after."""
        for encoding, shape in self._each():
            values = np.linspace(-3, 3, 4 * prod(shape), dtype=np.float32).reshape(4, *shape)
            before = values.copy()
            encoding.encode(values)
            encoding.error_bound(values)
            assert np.array_equal(values, before), "the values were changed in place"

    def a_value_is_kept_or_refused_with_its_row(self) -> None:
        """Write the largest values that there are: no finite value becomes infinite in silence."""
        for encoding, shape in self._each():
            values = np.ones((4, *shape), np.float32)
            values[2].flat[1] = 3e38
            values[3].flat[0] = LARGEST
            overflow = refused(encoding, values)
            if overflow is None:
                assert np.all(np.isfinite(decoded(encoding, values))), "a finite value becomes infinite"
                continue
            assert overflow.rows.tolist() == [2, 3], (
                f"rows {overflow.rows.tolist()} are refused, where 2 and 3 are too large"
            )
            assert 0 < overflow.limit < 3e38, f"the limit is {overflow.limit:g}"
            assert refused(encoding, values[2:3]) is not None, "a row is refused beside others alone"

    def a_gpu_reads_the_same_values(self) -> None:
        """Read values on the GPU, if there is one: rounding alone may differ."""
        if not torch.cuda.is_available():
            raise NotTried("there is no GPU")
        for encoding, shape in self._each():
            values = np.random.default_rng(0).normal(0, 3, (6, *shape)).astype(np.float32)
            parts = {part: torch.from_numpy(array.copy()).cuda() for part, array in encoding.encode(values).items()}
            torch.testing.assert_close(encoding.decode(parts).cpu(), torch.from_numpy(decoded(encoding, values)))


def decoded(encoding: Encoding, values: Values) -> Values:
    """Return what comes back.

    Args:
        encoding: of a signal.
        values: of the signal [R, ...].
    """
    parts = {part: torch.from_numpy(array.copy()) for part, array in encoding.encode(values).items()}
    result: Values = encoding.decode(parts).numpy()
    return result


def refused(encoding: Encoding, values: Values) -> EncodingOverflow | None:
    """Return the error with which values are refused; None if they are written.

    Args:
        encoding: of a signal.
        values: of the signal [R, ...].
    """
    try:
        encoding.encode(values)
    except EncodingOverflow as overflow:
        return overflow
    return None


def require_within_bound(encoding: Encoding, values: Values) -> None:
    """Raise AssertionError if values come back farther off than is said, or are refused without a reason.

    Args:
        encoding: of a signal.
        values: of the signal [R, ...].
    """
    if overflow := refused(encoding, values):
        largest = np.abs(values).reshape(len(values), -1).max(axis=1)
        assert np.all(largest[overflow.rows] > overflow.limit), "rows are refused that are within the limit"
        return
    back, bound = decoded(encoding, values), encoding.error_bound(values)
    assert back.dtype == np.float32, f"values come back as {back.dtype}, not float32"
    assert back.shape == values.shape, f"values {list(values.shape)} come back as {list(back.shape)}"
    assert bound.shape == values.shape, f"the bound is {list(bound.shape)}, not {list(values.shape)}"
    off = np.abs(back.astype(np.float64) - values) - bound
    assert np.all(off <= 0), f"a value comes back {off.max():g} farther off than error_bound says"


def require_rows_alone(encoding: Encoding, values: Values) -> None:
    """Raise AssertionError if what a row becomes depends on its neighbours: a unit is filled by micro-batches.

    Args:
        encoding: of a signal.
        values: of the signal [R, ...].
    """
    together = encoding.encode(values)
    for row in range(len(values)):
        for part, array in encoding.encode(values[row : row + 1].copy()).items():
            same = array.tobytes() == together[part][row : row + 1].tobytes()
            assert same, f"part {part!r} of a row is another beside other rows"


def require_undamaged(encoding: Encoding, values: Values) -> None:
    """Raise AssertionError if values that were written are said to be damaged.

    Args:
        encoding: of a signal.
        values: of the signal [R, ...].
    """
    for part, rows in encoding.encode(values).items():
        found = encoding.impossible_rows(part, rows)
        assert found.shape == (len(values),), f"impossible_rows gives {list(found.shape)}, not [{len(values)}]"
        assert not found.any(), f"part {part!r} is said to be damaged"


def _values(shape: tuple[int, ...]) -> Iterator[Values]:
    """Values of several magnitudes [R, *shape], with zeros and ties; the last ones are too large for half precision."""
    random = np.random.default_rng(0)
    yield np.zeros((2, *shape), np.float32)
    yield np.full((2, *shape), -0.0, np.float32)
    for scale in (1e-40, 1e-6, 1, 1e4):
        yield (scale * random.normal(0, 1, (3, *shape))).astype(np.float32)
    yield random.choice(np.array([-1.5, -0.0, 0, 1.5, 2e-6], np.float32), (4, *shape))
    yield (np.float32(1e34) * random.normal(0, 1, (3, *shape)).astype(np.float32)).astype(np.float32)
