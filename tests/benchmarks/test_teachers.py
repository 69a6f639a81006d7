"""The comparison of teachers: its students differ in their teacher alone, and its correlations are those of ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.experiment.config import ExperimentConfig

teachers = pytest.importorskip("teachers")


def test_students_differ_in_nothing_but_their_teacher() -> None:
    read = {
        name: teachers.source_of(name, Path("weights")).read(ExperimentConfig).model_dump()
        for name in teachers.TEACHERS
    }
    for name, config in read.items():
        assert config["teacher"].pop("model") == f"cifar_{name}"
        assert config["teacher"].pop("weights") == Path(f"weights/cifar100_{name}.safetensors")
        assert name in str(config["store"].pop("path"))
        assert name in str(config["runs"].pop("path"))
    assert all(each == read["resnet56"] for each in read.values())


def test_constants_are_those_that_were_chosen_with_equal_care() -> None:
    from equal_care_table import read_students

    chosen = {each.objectives: float(each.value) for each in read_students() if each.split == "test" and each.value}
    config = teachers.source_of("resnet56", Path()).read(ExperimentConfig)
    weights = {name: each.objectives[-1].weight for name, each in config.objectives.items()}
    assert weights == {name: chosen[name] for name in teachers.SETS}


def test_ranks_are_compared_of_means_over_seeds() -> None:
    """By hand: the accuracy has the order of KD's means and the opposite one of LFCC's; the entropy one change."""
    orders = {"accuracy": [1, 2, 3, 4], "entropy": [1, 2, 4, 3]}
    found = {
        name: teachers.Taught(
            {number: float(orders.get(number, orders["accuracy"])[i]) for number in teachers.NUMBERS},
            {"kd": [0.1 * i - 0.05, 0.1 * i + 0.05], "lfcc": [0.5 - 0.1 * i, 0.5 - 0.1 * i]},
        )
        for i, name in enumerate(teachers.TEACHERS)
    }
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in teachers.table_of(found).splitlines()]
    assert lines[2][0] == "resnet20"
    assert lines[5][-2:] == ["30.00 ± 7.07", "20.00 ± 0.00"]
    rows = {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines}
    assert rows["rank correlation with kd"]["accuracy"] == "1.00"
    assert rows["rank correlation with lfcc"]["accuracy"] == "-1.00"
    assert rows["rank correlation with kd"]["entropy"] == "0.80"  # 1 - 6 * 2 / (4 * 15)
