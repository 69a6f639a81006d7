"""The comparison with equal care varies one constant of every set that has any, and nothing else."""

from __future__ import annotations

import pytest

from pipeline.objectives import ObjectiveEntry
from pipeline.yaml_text import read_config

care = pytest.importorskip("equal_care")
SETS = read_config(care.CONFIG)["objectives"]
LABELS_ALONE = {"hard", "hard-cached"}


def test_every_set_but_labels_alone_has_a_constant() -> None:
    assert {name for name, entries in SETS.items() if care.constant_of(entries) is None} == LABELS_ALONE


def test_that_constant_alone_changes_and_every_value_is_one_that_the_method_takes() -> None:
    for name in SETS.keys() - LABELS_ALONE:
        key, constant = care.constant_of(SETS[name])
        values = care.values_of(constant)
        assert values[2] == constant
        assert values == sorted(set(values))
        assert values[4] / values[0] == pytest.approx(81, rel=0.02)
        label, option = key.split(".")
        for value in values:
            changed = care.with_constant(SETS[name], key, value)
            assert [each for each in changed if each["name"] != label] == [
                each for each in SETS[name] if each["name"] != label
            ]
            (own,) = [each for each in changed if each["name"] == label]
            assert own.pop(option) == value
            before = next(dict(each) for each in SETS[name] if each["name"] == label)
            before.pop(option, None)
            assert own == before
            for entry in changed:
                ObjectiveEntry.model_validate(entry)


@pytest.mark.parametrize(
    ("name", "constant"), [("lfcc", 10.0), ("icd", 32.0), ("lift", 0.2), ("rkd", 1.0), ("ft", 1.0)]
)
def test_constants_are_those_of_the_file_or_of_the_method(name: str, constant: float) -> None:
    assert care.constant_of(SETS[name])[1] == constant
