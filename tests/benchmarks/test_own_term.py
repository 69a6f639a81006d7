"""The comparison of iCD with its base: pairs differ in the term alone, and differences are of equal seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.experiment.config import ExperimentConfig

own_term = pytest.importorskip("own_term")


def test_pairs_differ_in_the_term_alone() -> None:
    config = own_term.source_of("resnet20", Path("weights")).read(ExperimentConfig)
    assert config.runs.seeds == own_term.SEEDS
    for weight in own_term.WEIGHTS:
        base, term = (config.objectives[f"{kind}-{weight}"].objectives for kind in ("base", "icd"))
        assert term[:-1] == base
        assert (term[-1].name, base[-1].name, base[-1].weight) == ("icd", "sdd", weight)


def test_differences_are_of_equal_seeds() -> None:
    """By hand, with t(0.975; 4) = 2.7764: differences 1, 2, 3, 4, 5 points have mean 3 and error sqrt(2.5 / 5)."""
    base = {seed: 0.2 + 0.01 * (seed % 3) for seed in range(5)}
    term = {seed: base[seed] + 0.01 * (seed + 1) for seed in (4, 2, 0, 1, 3)}
    same = {seed: base[seed] + (0.01 if seed % 2 else -0.01) for seed in range(5)}
    assert own_term.difference(term, base) == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])
    sets = {"base-0.9": base, "icd-0.9": term, "base-2.7": base, "icd-2.7": same}
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in own_term.table_of({"x": sets}).splitlines()]
    assert lines[2] == ["x", "0.9", "20.80 ± 0.84", "23.80 ± 1.92", "+3.00 ± 1.96"]
    assert lines[3][-1] == "-0.20 ± 1.36"  # squares of 4.8 in all: error sqrt(4.8 / 4 / 5)
    assert lines[4][:2] == ["x", "both"]


def test_both_weights_together_are_means_of_equal_seeds() -> None:
    """By hand: means over both of 1, 2, 3, 4, 5 and of 1, 0, -1, -2, -3 points are 1 in each seed, without an error."""
    base = dict.fromkeys(range(5), 0.2)
    up, down = (
        {seed: 0.2 + 0.01 * value for seed, value in enumerate(each)} for each in ((1, 2, 3, 4, 5), (1, 0, -1, -2, -3))
    )
    sets = {"base-0.9": base, "icd-0.9": up, "base-2.7": base, "icd-2.7": down}
    assert own_term.table_of({"x": sets}).splitlines()[-1] == "| x | both |  |  | +1.00 ± 0.00 |"
    del up[4]  # of a run that is not finished: the seed counts for neither weight
    assert own_term.table_of({"x": sets}).splitlines()[-1] == "| x | both |  |  | +1.00 ± 0.00 |"


def test_the_page_has_the_table_of_what_is_filed() -> None:
    tops = own_term.kept()
    assert [len(seeds) for sets in tops.values() for seeds in sets.values()] == [len(own_term.SEEDS)] * 8
    page = (own_term.DOCS / "results.md").read_text()
    assert own_term.BLOCK.search(page)[2] == own_term.table_of(tops) + "\n"
