"""The table of the comparison with equal care says no more than the spread of seeds allows."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

made = pytest.importorskip("equal_care_table")
care = pytest.importorskip("equal_care")


def students(name: str, *top1: float, tries: str = "") -> list[object]:
    """The seeds of a set, and the tries of its constant: VALUE: SHARE, the first of which was chosen."""
    tried = [each.split(":") for each in tries.split(",") if each]
    key, chosen = ("kd.weight", tried[0][0].strip()) if tried else ("", "")
    found = [made.Student(name, key, value.strip(), 0, "holdout", float(share)) for value, share in tried]
    return found + [made.Student(name, key, chosen, seed, "test", share) for seed, share in enumerate(top1)]


@pytest.mark.parametrize("seeds", [(3, 3, 3, 3), (3, 5, 2, 4)])
def test_pairs_differ_where_tukeys_test_says_so(seeds: tuple[int, ...]) -> None:
    random, verdicts = np.random.default_rng(1), set()
    for _ in range(4):
        scores = {str(i): random.normal(2 * i * random.random(), 1, count).tolist() for i, count in enumerate(seeds)}
        least = made.significant_difference(scores)
        theirs = stats.tukey_hsd(*scores.values()).pvalue
        for a, b in permutations(scores, 2):
            differ = abs(np.mean(scores[a]) - np.mean(scores[b])) > least[a, b]
            assert differ == (theirs[int(a), int(b)] < 0.05)
            verdicts.add(bool(differ))
    assert verdicts == {True, False}


def test_places_by_hand() -> None:
    scores = {"worst": [1.0, 1.1, 1.2], "best": [9.0, 9.1, 9.2], "middle": [5.0, 5.1, 5.2], "alike": [5.05, 5.1, 5.3]}
    assert made.places(scores) == {"best": (1, 1), "middle": (2, 3), "alike": (2, 3), "worst": (4, 4)}


def test_without_a_spread_nothing_differs() -> None:
    assert made.places({"a": [1.0], "b": [99.0]}) == {"a": (1, 2), "b": (1, 2)}


def test_what_is_filed_again_replaces_its_set_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "equal-care.csv"
    first = students("kd", 0.5, 0.6, tries="0.9: 0.4, 0.1: 0.3")
    made.keep_students([*first, *students("hard-cached", 0.2)], file)
    assert made.read_students(file) == sorted([*first, *students("hard-cached", 0.2)])
    made.keep_students(students("kd", 0.7), file)
    assert made.read_students(file) == sorted([*students("kd", 0.7), *students("hard-cached", 0.2)])


def test_the_table_by_hand() -> None:
    rows = [*students("hard-cached", 0.21), *students("kd", 0.5, 0.52, tries="0.9: 0.4, 0.1: 0.3")]
    assert made.table_of(rows).splitlines()[2:] == [
        "| kd | 2 | 51.00 ± 1.41 | 1 | `kd.weight` 0.1: 30.00, **0.9: 40.00** |",
        "| hard-cached | 1 | 21.00 | 2 |  |",
    ]


def test_the_page_has_the_table_of_what_is_filed() -> None:
    """If this fails: `python benchmarks/equal_care.py keep`."""
    page = care.RESULTS.read_text()
    assert "<!-- equal care -->" in page
    assert care.with_table(page) == page


def test_what_is_filed_of_a_set_is_its_finished_tries_and_its_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(care, "RUNS", tmp_path)
    file = tmp_path / "sweeps/resnet8/kd/seed-0/sweep.json"
    file.parent.mkdir(parents=True)
    tries = [{"values": {"kd.weight": value}, "score": score} for value, score in ((0.1, 0.3), (0.9, 0.4), (8.1, None))]
    file.write_text(json.dumps({"seed": 0, "tries": tries, "chosen": tries[1]}))
    found = care.students_of("kd", [{"name": "hard-label"}, {"name": "kd", "weight": 0.9}], {0: 0.5, 1: 0.52})
    assert sorted(found) == sorted(students("kd", 0.5, 0.52, tries="0.9: 0.4, 0.1: 0.3"))
    labels = care.students_of("hard-cached", [{"name": "hard-label"}], {0: 0.2})
    assert labels == students("hard-cached", 0.2)
