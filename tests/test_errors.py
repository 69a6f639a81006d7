"""What messages quote of other errors, and what is left of an error that comes from another process."""

from __future__ import annotations

import pickle

import pytest
from torch.utils.data import DataLoader, Dataset

from pipeline.errors import (
    ArgumentError,
    CacheCorrupt,
    ConfigError,
    DataError,
    ModelError,
    PipelineError,
    Problem,
    TrainingError,
    first_line,
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (OSError("one\ntwo"), "one"),
        (KeyError(), "KeyError"),
        (TimeoutError(""), "TimeoutError"),
    ],
)
def test_an_error_is_quoted_by_its_first_line_or_its_type(error: Exception, line: str) -> None:
    assert first_line(error) == line


WRONG = (Problem("views.count", "is zero"), Problem("train.epochs", "is no number", got="'ten'"))


class Failing(Dataset[int]):
    """Raises an error of ours for every item."""

    def __init__(self, error: PipelineError) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise self.error


def test_an_error_of_a_worker_process_keeps_its_type_and_its_text() -> None:
    """DataLoaders make such an error again from one argument, a text that ends in its own."""
    error = ConfigError(WRONG, "a.yaml")
    with pytest.raises(ConfigError) as caught:
        next(iter(DataLoader(Failing(error), num_workers=1)))
    assert str(caught.value).rstrip().endswith(str(error))
    assert "Caught ConfigError in DataLoader worker process 0" in str(caught.value)
    assert (caught.value.problems, caught.value.exit_code) == ((), 2)


@pytest.mark.parametrize(
    "error",
    [
        ConfigError(WRONG, "a.yaml"),
        ConfigError("the whole text\n- b"),
        ArgumentError(WRONG, "cache_teacher"),
        *(kind("what", where="a", fix="b") for kind in (CacheCorrupt, DataError, ModelError, TrainingError)),
    ],
)
def test_errors_survive_a_pickle_and_are_made_again_from_their_text(error: PipelineError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    assert str(type(error)(str(error))) == str(error)
