from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.training import TrainConfig

OF_0_1 = """epochs batch_size views_per_step optimizer learning_rate weight_decay momentum schedule warmup_epochs
    milestones clip_gradient precision ema view_offset"""


def test_the_identity_of_settings_without_new_keys_is_that_of_version_0_1():
    assert list(TrainConfig(epochs=3).identity()) == OF_0_1.split()
    assert set(TrainConfig.later) <= set(TrainConfig.model_fields)


@pytest.mark.parametrize(
    "changes", [{"accumulate": 2}, {"sampling": "balanced"}, {"layer_decay": 0.7}, {"patience": 5}, {"epochs": 2}]
)
def test_what_decides_the_weights_is_in_the_identity(changes: dict[str, object]):
    assert TrainConfig.model_validate(changes).identity() == {**TrainConfig().identity(), **changes}


@pytest.mark.parametrize("changes", [{"workers": 3}, {"checkpoint_epochs": 5}, {"device": "cpu"}])
def test_how_a_run_goes_is_not(changes: dict[str, object]):
    assert TrainConfig.model_validate(changes).identity() == TrainConfig().identity()


def test_settings_that_need_what_there_is_not_are_refused_together():
    settings = TrainConfig(patience=3, sampling="balanced")
    with pytest.raises(ConfigError) as error:
        settings.refuse_without("train", labels=False, holdout=False)
    assert [problem.key for problem in error.value.problems] == ["train.patience", "train.sampling"]
    settings.refuse_without("train", labels=True, holdout=True)


@pytest.mark.parametrize("changes", [{"accumulate": 0}, {"layer_decay": 1.5}, {"patience": 0}, {"sampling": "even"}])
def test_values_that_make_no_sense_are_refused(changes: dict[str, object]):
    with pytest.raises(ValidationError):
        TrainConfig.model_validate(changes)


@pytest.mark.parametrize(
    ("changes", "samples", "smallest"),
    [
        ({"batch_size": 128}, 128, 128),
        ({"batch_size": 128}, 129, 64),
        ({"batch_size": 2}, 3, 1),
        ({"batch_size": 8, "views_per_step": 2}, 5, 4),  # of 3 samples and of 2
        ({"batch_size": 4, "accumulate": 2}, 8, 4),
        ({"batch_size": 128}, 1, 1),
    ],
)
def test_the_smallest_batch_is_at_most_one_sample_smaller(changes: dict[str, int], samples: int, smallest: int):
    assert TrainConfig.model_validate(changes).smallest_batch(samples) == smallest
