"""Which blocks learn from which: counted from the last of both networks, whatever is cached."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from objectives.maps import CONTEXT

from pipeline.errors import ConfigError
from pipeline.objectives import build_objective
from pipeline.objectives.base import pair_blocks, pair_last_blocks
from pipeline.objectives.extras import pair_extras
from pipeline.signals import SignalShapes, block_number, deepest_block


def network(*blocks: int, of: int | None = None, extras: tuple[str, ...] = ()) -> SignalShapes:
    """A network of which these blocks are held. of: how many it has, if that is known."""
    features = {f"block{number}": (4, 4, 4) for number in blocks}
    return SignalShapes(3, 4, features, True, extras=dict.fromkeys(extras, (4, 4)), blocks=of)


def paired(student: SignalShapes, teacher: SignalShapes, *blocks: str) -> dict[str, str]:
    return {pair.teacher: pair.student for pair in pair_blocks(student, teacher, blocks or None, "x")}


def test_blocks_by_their_numbers():
    assert [block_number(tap) for tap in ("block1", "block12", "final", "block3.pre", "block")] == [1, 12, 0, 0, 0]
    assert deepest_block(["block2", "final"]) == 2
    assert deepest_block([], ["attention-map/block1", "fsp-matrix/block3", "channel-gram/final"]) == 4
    assert deepest_block(["block1"], ["not-known-yet/block2"]) == 2
    assert deepest_block(["final", "embedding"]) == 0


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (network(1, 2, 3), network(1, 2, 3), {"block1": "block1", "block2": "block2", "block3": "block3"}),
        (network(1, 2, 3), network(2, of=3), {"block2": "block2"}),  # and not the student's last
        (network(1, 2, 3), network(1, 3), {"block1": "block1", "block3": "block3"}),  # and not its second
        (network(1, 2), network(1, 2, of=3), {"block2": "block1"}),
        (network(1, 2, 3, 4), network(1, 2, of=3), {"block1": "block2", "block2": "block3"}),
        (network(1, 2, 3), network(2), {"block2": "block3"}),  # of an older cache, which tells no more
        (network(1, 2, 3), network(1, extras=("fsp-matrix/block2",)), {"block1": "block1"}),
    ],
)
def test_pairs_count_from_the_last_of_both(student: SignalShapes, teacher: SignalShapes, expected: dict[str, str]):
    assert paired(student, teacher) == expected


def test_extra_signals_are_paired_alike():
    student, flow = network(1, 2, 3), network(of=3, extras=("fsp-matrix/block1",))
    assert pair_extras("fsp-matrix", student, flow, None, "x") == {"block1": ("block1", "block2")}
    attention = network(3, extras=("attention-map/block2",))
    assert pair_extras("attention-map", student, attention, None, "x") == {"block2": ("block2",)}
    with pytest.raises(ConfigError, match=r"the student has too few blocks for fsp-matrix/block1"):
        pair_extras("fsp-matrix", network(1, 2), flow, None, "x")
    with pytest.raises(ConfigError, match=r"add `extras: \[fsp-matrix/block2\]`"):
        pair_extras("fsp-matrix", student, network(1, of=3), None, "x")


def test_blocks_without_a_partner_are_refused_if_there_is_no_other():
    few, teacher = network(1), network(1, 2, of=3)
    with pytest.raises(
        ConfigError, match=r"has 1 blocks, too few for the teacher's block1, block2\n(.|\n)*cache deeper"
    ):
        paired(few, teacher)
    assert paired(network(1, 2), teacher) == {"block2": "block1"}
    with pytest.raises(ConfigError, match=r"too few for the teacher's block1\n(.|\n)*leave the shallow blocks out"):
        paired(network(1, 2), teacher, "block1", "block2")


def test_what_reads_the_last_map_is_not_given_another():
    student, teacher = network(1, 2, 3), network(1, 2, of=3)
    with pytest.raises(
        ConfigError, match=r"last block(.|\n)*got: block1, block2(.|\n)*add block3 to `signals.features"
    ):
        pair_last_blocks(student, teacher, "x")
    with pytest.raises(ConfigError, match="last block"):
        build_objective("simkd", {"target": "map"}, student, teacher, CONTEXT)
    with pytest.raises(ConfigError, match="needs cached features"):
        pair_last_blocks(student, network(), "x")
    last = pair_last_blocks(student, replace(teacher, blocks=None), "x")
    assert (last.student, last.teacher) == ("block3", "block2")


@pytest.mark.parametrize("name", ["sdd", "icd", "cat-kd"])
def test_local_logits_are_of_the_last_block_and_no_other(name: str):
    """A block of the head's width that is not the last would be taken without a word."""
    student = network(1, 2, 3)
    labels = replace(CONTEXT, classes=3, labels=torch.arange(CONTEXT.num_samples) % 3)
    with pytest.raises(ConfigError, match=r"needs the map of the teacher's last block(.|\n)*add block3 to"):
        build_objective(name, {}, student, network(2, of=3), labels)
    assert build_objective(name, {}, student, network(2, 3), labels)
