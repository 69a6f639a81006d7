"""Which signals students need, against what is known of the methods; the section that serves them serves them."""

from __future__ import annotations

import io
import json
import pickle
import random
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from experiment import source

from pipeline.commands import check
from pipeline.errors import ConfigError
from pipeline.experiment.networks import shapes_of
from pipeline.experiment.objective_set import ObjectiveBuilder
from pipeline.planning.binding import bind_experiment
from pipeline.planning.narrowed import layout_of_view
from pipeline.planning.requirements import MissingSignalsError
from pipeline.signals import SignalsConfig
from pipeline.yaml_text import parse_yaml

SETS = (
    "objectives={hard: [{name: hard-label}], kd: [{name: hard-label}, {name: kd}], crcd: [{name: crcd}],"
    " lfcc: [{name: kd}, {name: lfcc, scales: [1, 2], width: 16}], at: [{name: at, signal: extra}],"
    " simkd: [{name: simkd}]}"
)
ATTENTION = "extras/attention-map/block3"
MAPS = {"features/block2", "features/block3"}
READ: dict[str, set[str]] = {
    "hard": set(),
    "kd": {"logits"},
    "crcd": {"embedding", "head", "logits"},
    "lfcc": {"logits", *MAPS},
    "at": {ATTENTION},
    "simkd": {"embedding", "head"},
}
"""What the methods read, by the papers: of both students, of two blocks where two are kept."""


def of(*overrides: str, people: bool = True) -> tuple[dict[str, Any], str]:
    """The requirements for programs, and all that is printed for people, if wanted; problems do not matter."""
    texts = [""] * (not people)
    for as_json in (False, True)[not people :]:
        with redirect_stdout(io.StringIO()) as printed:
            try:
                check.run(source(*overrides), as_json=as_json)
            except ConfigError as error:
                print("" if as_json else error)
        texts.append(printed.getvalue())
    return json.loads(texts[1])["requirements"], texts[0]


def needs(facts: dict[str, Any]) -> dict[str, dict[str, set[str]]]:
    """By objective set and student."""
    found: dict[str, dict[str, set[str]]] = {}
    for entry in facts["needs"]:
        found.setdefault(entry["objectives"], {})[entry["student"]] = set(entry["signals"])
    return found


def section_in(printed: str) -> dict[str, Any]:
    """The section as a person would copy it: from `signals:` to the next line that is not below it."""
    lines = printed.splitlines()
    start = lines.index("signals:")
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith("  ")), len(lines))
    return parse_yaml("\n".join(lines[start:end]), "")["signals"]


def test_who_needs_what_and_what_nobody_needs(here: Path):
    more = "signals.extras=[attention-map/block3, {name: channel-gram/block3, encoding: int8}]"
    facts, printed = of(SETS, more)
    assert needs(facts) == {name: {"small": read, "vit": read} for name, read in READ.items()}
    assert facts["missing"] == {}
    assert facts["superfluous"] == {"extras/channel-gram/block3": 64 * 64 + 64 * 4}
    lines = printed.splitlines()
    for line in (
        "needs     nothing: hard",
        "          embedding, head: simkd",
        "          embedding, head, logits: crcd",
        f"          {ATTENTION}: at",
        "          features/block2, features/block3, logits: lfcc",
        "          logits: kd",
        "unneeded  extras/channel-gram/block3: 4,352 bytes per view",
    ):
        assert line in lines
    wanted = {
        "logits": {"encoding": "float32"},
        "embedding": {"encoding": "float32"},
        "features": {"blocks": ["block2", "block3"], "grid": 2, "filter": "mean", "encoding": "float32"},
        "extras": ["attention-map/block3"],
    }
    assert section_in(printed) == facts["signals"] == wanted


def test_what_is_kept_for_nobody_is_left_out(here: Path):
    facts, printed = of("objectives={kd: [{name: kd}]}")
    assert facts["superfluous"] == {"embedding": 256, "features/block2": 512, "features/block3": 1024}
    assert section_in(printed) == {"logits": {"encoding": "float32"}, "embedding": None}


def test_nothing_more_is_said_where_all_is_needed(here: Path):
    facts, printed = of("signals.embedding=null")
    assert (facts["missing"], facts["superfluous"]) == ({}, {})
    assert "unneeded" not in printed
    assert "signals:" not in printed.splitlines()
    assert of("students={}")[0] is None


def test_students_with_other_needs_are_named(here: Path):
    facts, printed = of("signals.features.blocks=null", "objectives={at: [{name: at}]}")
    # The ViT has two blocks, and blocks are paired from the last.
    assert needs(facts) == {"at": {"small": MAPS | {"features/block1"}, "vit": MAPS}}
    assert "needs     features/block1, features/block2, features/block3: at (small)" in printed
    assert "          features/block2, features/block3: at (vit)" in printed


def test_where_signals_are_missing_the_error_has_the_section_that_serves_all(here: Path):
    bare = ("signals={embedding: null}", SETS)
    facts, printed = of(*bare)
    # Nothing says how many blocks are to be kept: the fewest that do, the deepest.
    read = {**READ, "lfcc": {"logits", "features/block3"}}
    assert needs(facts) == {name: {"small": found, "vit": found} for name, found in read.items()}
    assert facts["missing"] == {"embedding": 128, "features/block3": 64 * 4 * 2, ATTENTION: 8}
    section = section_in(printed)
    assert (
        section
        == facts["signals"]
        == {
            "logits": {"encoding": "float16"},
            "embedding": {"encoding": "float16"},
            "features": {"blocks": ["block3"], "grid": 4, "filter": "mean", "encoding": "float16"},
            "extras": ["attention-map/block3"],
        }
    )
    lacks = ("embedding: crcd, simkd", "features/block3: lfcc", f"{ATTENTION}: at")
    assert (
        "\n".join(["- signals: lacks what objective sets read of the teacher", *("  " + x for x in lacks)]) in printed
    )
    with pytest.raises(MissingSignalsError) as error:
        check.run(source(*bare), as_json=False)
    assert pickle.loads(pickle.dumps(error.value)).problems == error.value.problems
    assert "objectives.crcd.0: needs the teacher's embedding" in printed  # every problem is there as before
    again, printed = of(SETS, f"signals={json.dumps(section)}")
    assert "the configuration is valid" in printed
    assert again == {**facts, "missing": {}}


def test_a_method_that_needs_several_blocks_gets_them(here: Path):
    facts, _ = of("signals.features.blocks=1", "objectives={fsp: [{name: fsp}], kd: [{name: kd}]}")
    assert facts["missing"] == {"features/block2": 512}
    facts, _ = of("signals.features=null", "objectives={fsp: [{name: fsp, signal: extra}]}")
    assert facts["missing"] == {"extras/fsp-matrix/block2": 32 * 64 * 2}
    assert facts["superfluous"] == {"embedding": 256}


def test_a_head_that_reads_final_gets_it(here: Path):
    options = "{img_size: 8, patch_size: 2, window_size: 2, embed_dim: 12, depths: [1, 1], num_heads: [1, 2]}"
    swin = f"teacher={{model: swin_tiny_patch4_window7_224, input_size: 8, options: {options}}}"
    local = "objectives={sdd: [{name: sdd, scales: [1, 2]}]}"
    facts, printed = of(swin, local, "teacher_training={}", "signals.features={grid: 2}")
    assert needs(facts) == {"sdd": {"small": {"features/final", "head"}, "vit": {"features/final", "head"}}}
    assert facts["missing"].keys() == {"features/final"}
    assert section_in(printed)["features"]["blocks"] == ["final"]


def test_nothing_is_left_out_for_the_sake_of_an_objective_that_cannot_be_bound(here: Path):
    wrong = "objectives={lfcc: [{name: lfcc, scales: [1, 4]}], crcd: [{name: crcd}]}"
    facts, printed = of("signals.embedding=null", wrong)
    assert "a scale is finer than the cached map" in printed
    assert set(facts["missing"]) == {"embedding"}
    assert facts["signals"]["features"]["blocks"] == ["block2", "block3"]
    # Not to be had by other signals: no section is offered.
    with pytest.raises(ConfigError) as error:
        check.run(source("objectives={lfcc: [{name: lfcc, scales: [1, 4]}]}"), as_json=False)
    assert "signals:" not in str(error.value)


def test_a_block_in_the_middle_is_kept_alone(here: Path):
    middle = "objectives={at: [{name: fitnet, blocks: [block2]}]}"
    facts, _ = of("signals.features.blocks=null", middle)
    assert needs(facts)["at"]["small"] == {"features/block2"}
    assert facts["superfluous"] == {"embedding": 256, "features/block1": 256, "features/block3": 1024}
    facts, printed = of("signals.features=null", middle)
    assert set(facts["missing"]) == {"features/block2"}
    assert "lacks what objective sets read of the teacher\n  features/block2: at\n" in printed


ENTRIES = (
    "{name: kd}",
    "{name: rkd}",
    "{name: vid}",
    "{name: fitnet, blocks: [block2]}",
    "{name: at, signal: extra}",
    "{name: at, signal: extra, blocks: [block2]}",
    "{name: fsp, signal: extra}",
    "{name: reviewkd}",
    "{name: semckd}",
    "{name: simkd, target: map}",
)
SECTIONS = (
    "{embedding: null}",
    "{features: {blocks: 1, grid: 2}, extras: [attention-map/block2]}",
    "{features: {}, extras: [channel-gram/block1, fsp-matrix/block1, fsp-matrix/block2, attention-map/block3]}",
)


@pytest.mark.parametrize("seed", range(4))
def test_the_section_serves_all_with_the_same_pairs_and_again_it_is_the_least(here: Path, seed: int):
    drawn = random.Random(seed)
    sets = {f"set{i}": drawn.sample(ENTRIES, drawn.choice((1, 2))) for i in range(2)}
    texts = [f"{name}: [{', '.join(e[:-1] + f', label: l{i}}}' for i, e in enumerate(s))}]" for name, s in sets.items()]
    objectives = f"objectives={{{', '.join(texts)}}}"
    facts, _ = of(objectives, f"signals={SECTIONS[seed % 3]}", people=False)
    again, printed = of(objectives, f"signals={json.dumps(facts['signals'])}")
    assert "the configuration is valid" in printed, printed
    assert again == {**facts, "missing": {}, "superfluous": {}}


def test_students_learn_from_the_same_blocks_of_their_own(here: Path):
    """What is left out changes no pair, on either side."""
    sets = "objectives={a: [{name: fitnet, blocks: [block2]}], b: [{name: at, signal: extra, blocks: [block2]}]}"
    extras = "[attention-map/block1, attention-map/block2, attention-map/block3]"
    bound = bind_experiment(source(sets, "signals.features.blocks=null", f"signals.extras={extras}"))
    assert bound.requirements is not None
    assert bound.data is not None

    def own(signals: SignalsConfig) -> dict[tuple[str, str], frozenset[str]]:
        shapes = layout_of_view(bound.teacher, signals).shapes
        return {
            (name, each): ObjectiveBuilder(shapes_of(network), shapes, bound.data, 0).build(each, entries).needs.student
            for name, network in bound.students.items()
            for each, entries in bound.experiment.objectives.items()
        }

    section = bound.requirements.section
    others = {f"{kind}/block{number}" for kind in ("features", "extras/attention-map") for number in (1, 3)}
    assert set(bound.requirements.superfluous) == {"embedding", *others}
    assert own(section) == own(bound.experiment.signals)
    assert own(section)["small", "a"] == {"features/block2"}
