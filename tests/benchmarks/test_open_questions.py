"""The sets that ask what is wrong with OFA and CRCD in a ViT: each differs from the file's in one thing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.experiment.config import ExperimentConfig
from pipeline.models import build_network

questions = pytest.importorskip("open_questions")


def test_sets_differ_from_those_of_the_file_in_one_option() -> None:
    config = questions.source_of().read(ExperimentConfig)
    read = {name: [each.model_dump() for each in entry.objectives] for name, entry in config.objectives.items()}
    for name, entries in read.items():
        method = name.partition("-")[0]
        whole = read["hard-cached" if method == "hard" else method]
        differing = [key for one, other in zip(whole, entries, strict=True) for key in one if one[key] != other[key]]
        assert len(differing) == (0 if name in (method, "hard-cached") else 1), name


def test_the_last_exit_is_on_the_last_of_four_blocks() -> None:
    config = questions.source_of().read(ExperimentConfig)
    student = config.students["vit"]
    network = build_network(student.model, 100, input_size=32, options=student.options, seed=0)
    blocks = [each for each in network.taps if each.startswith("block")]
    assert blocks == ["block1", "block2", "block3", "block4"]
    assert questions.SETS["ofa-last-exit"][-1]["blocks"] == blocks[-1:]


def test_a_row_has_the_holdout_and_the_first_losses_and_the_last(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"holdout": {"top1": 0.2125}}))
    text = "epoch,loss,hard-label/cross-entropy,ofa/exits,kd/kl\n1,31,4.391,26.2,\n2,9,2,3,\n3,9,1,2.5,\n"
    (tmp_path / "history.csv").write_text(text)
    losses = "`hard-label/cross-entropy` 4.39, `ofa/exits` 26.2 | `hard-label/cross-entropy` 1, `ofa/exits` 2.5"
    row = f"| ofa | 21.25 | {losses} |"
    assert questions.table_of([questions.row_of("ofa", tmp_path)]).splitlines()[2:] == [row]


def test_the_page_has_the_table_of_what_is_filed() -> None:
    rows = questions.kept()
    assert list(rows) == list(questions.SETS)
    found = questions.BLOCK.search(questions.RESULTS.read_text())
    assert found[2] == questions.table_of(list(rows.values()))
