from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.training import TrainConfig
from pipeline.training.teacher import TeacherTraining


def test_without_new_keys_it_is_what_it_was():
    assert TeacherTraining(epochs=5).identity() == TrainConfig(epochs=5).identity()
    assert not TeacherTraining().probes


def test_a_start_is_probed_first_and_then_fine_tuned():
    section = TeacherTraining.model_validate({"start": "pretrained"})
    assert (section.probes, section.freeze) == (True, "none")
    assert not TeacherTraining.model_validate({"start": "a.pth", "probe": 0}).probes


def test_the_weights_to_begin_with_are_told_by_their_digest_and_not_by_their_place():
    one, other = (TeacherTraining(start=Path(name), freeze="backbone") for name in ("a.pth", "b.pth"))
    assert one.identity() == other.identity() == {**TrainConfig().identity(), "freeze": "backbone"}


def test_options_of_the_objective():
    section = TeacherTraining.model_validate({"label_smoothing": 0.1, "class_weights": [1, 2.5]})
    assert section.objective == {"name": "hard-label", "label_smoothing": 0.1, "class_weights": (1.0, 2.5)}
    assert section.identity() == {**TrainConfig().identity(), "label_smoothing": 0.1, "class_weights": [1.0, 2.5]}


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ({"freeze": "backbone"}, "needs weights that are good already"),
        ({"freeze": "backbone", "start": "pretrained", "probe": 0}, "trains nothing"),
        ({"freeze": "head"}, "backbone"),
        ({"class_weights": "even"}, "balanced"),
        ({"class_weights": [1, -1]}, "greater than 0"),
    ],
)
def test_what_makes_no_sense_is_refused(section: dict[str, Any], what: str):
    with pytest.raises(ValidationError, match=what):
        TeacherTraining.model_validate(section)
