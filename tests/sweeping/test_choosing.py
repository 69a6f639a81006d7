"""What varies, how it is chosen, and the rule that stops tries, against Optuna's."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

import pipeline.sweeping.drawing
from pipeline.errors import ConfigError
from pipeline.experiment.source import ConfigFile
from pipeline.sweeping.axes import Choices, Range, axis_of
from pipeline.sweeping.sampling import STARTUP, Sampler
from pipeline.sweeping.space import SearchSpace
from pipeline.sweeping.stopping import FINISHED, WARMUP, is_hopeless
from pipeline.sweeping.tries import Tries, Try, best_of, finished

CONFIG = """\
objectives:
  kd: [hard-label, {name: kd, temperature: 2, weight: 1e-05, schedule: {warmup: 0.5}}]
  two:
    views: cached
    objectives: [{name: kd, label: soft}, {name: lfcc, label: soft.maps, scales: [1, 2]}]
  kd.v2: [{name: kd, temperature: 2}]
  hcl: [{name: hcl, width: 64, heads: 8}]
"""


@pytest.fixture
def source(tmp_path: Path) -> ConfigFile:
    (tmp_path / "a.yaml").write_text(CONFIG)
    return ConfigFile(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("1,2,4", Choices((1, 2, 4))),
        ("1, 1e-3, 1", Choices((1, 0.001))),
        ("[1],[1,2]", Choices(([1], [1, 2]))),
        ("none,cosine", Choices(("none", "cosine"))),
        ("0.1..10", Range(0.1, 10)),
        ("-1..1", Range(-1, 1)),
        ("1e-3..1:log", Range(0.001, 1, log=True)),
        (".1..1", Range(0.1, 1)),
        ("1..8:int", Range(1, 8, whole=True)),
        ("1..64:log:int", Range(1, 64, log=True, whole=True)),
    ],
)
def test_what_varies_is_a_list_or_a_range(text: str, axis: Range | Choices):
    assert axis_of(text, "key") == axis


@pytest.mark.parametrize(
    "text", ["", "2..1", "a..b", "0..1:log", "1.5..3:int", "[1", "nan..8", "1..inf", "1..8:integer", "1 .. 8"]
)
def test_what_is_neither_is_refused(text: str):
    with pytest.raises(ConfigError, match=r"key|not valid YAML"):
        axis_of(text, "key")


def test_values_of_a_range_are_spread_over_it():
    shares = [place / 1000 for place in range(1000)]
    assert {Range(1, 3, whole=True).at(share) for share in shares} == {1, 2, 3}
    assert Range(0.1, 10, log=True).at(0.5) == pytest.approx(1)
    assert Range(-2, 2).at(0.75) == 1
    assert Range(0, 1).at(1 / 3) == 0.3333  # of as many digits as people copy
    assert Range(0.12344, 1).at(0) == 0.12344  # and within the range
    assert Range(1, 64, log=True, whole=True).at(0.5) == 8


def test_a_try_is_the_configuration_with_its_constants(source: ConfigFile):
    space = SearchSpace.of(
        ["kd.weight=1e-05..1:log", "kd.schedule.warmup=0.1,0.5", "hard-label.weight=0,1"], "kd", source
    )
    assert space.configured(source) == {"kd.weight": 1e-05, "kd.schedule.warmup": 0.5, "hard-label.weight": 1.0}
    values = {"kd.weight": 3e-05, "kd.schedule.warmup": 0.1, "hard-label.weight": 0}
    assert space.with_values(source, values).raw()["objectives"]["kd"] == [
        {"name": "hard-label", "weight": 0},
        {"name": "kd", "temperature": 2, "weight": 3e-05, "schedule": {"warmup": 0.1}},
    ]
    other = SearchSpace.of(["soft.maps.scales=[1],[1,2]", "soft.temperature=1..4"], "two", source)
    changed = other.with_values(source, {"soft.maps.scales": [1], "soft.temperature": 2.5}).raw()["objectives"]["two"]
    assert changed["views"] == "cached"
    assert changed["objectives"][0]["temperature"] == 2.5
    assert changed["objectives"][1]["scales"] == [1]


def test_a_set_whose_name_has_a_dot_is_swept(source: ConfigFile):
    space = SearchSpace.of(["kd.temperature=1,8"], "kd.v2", source)
    changed = space.with_values(source, {"kd.temperature": 8})
    assert changed.raw()["objectives"]["kd.v2"] == [{"name": "kd", "temperature": 8}]
    assert changed.raw()["objectives"]["kd"] == source.raw()["objectives"]["kd"]
    again = SearchSpace.of(["kd.temperature=1,8"], "kd", changed).with_values(changed, {"kd.temperature": 1})
    assert again.raw()["objectives"]["kd.v2"] == [{"name": "kd", "temperature": 8}]  # replacements add up


def test_a_range_of_whole_numbers_must_say_so(source: ConfigFile):
    with pytest.raises(ConfigError, match=r"add :int: --vary soft\.maps\.width=8\.\.64:log:int"):
        SearchSpace.of(["soft.maps.width=8..64:log"], "two", source)
    SearchSpace.of(["soft.maps.width=8..64:log:int"], "two", source)
    for low, high in ((0, 100), (36.9, 37.2), (1, 10001), (-1, 1)):  # whose values at 0.37 may be whole
        inner = Range(low, high).inner()
        assert low < inner < high
        assert not inner.is_integer()


@pytest.mark.parametrize("vary", ["kd=1,2", "kd.=1,2"])
def test_an_objective_without_an_option_is_told_so(source: ConfigFile, vary: str):
    with pytest.raises(ConfigError, match=r"name an option: kd\.weight=1,2"):
        SearchSpace.of([vary], "kd", source)


@pytest.mark.parametrize(
    ("vary", "what"),
    [
        (["kd.schedule.warmup=0.1,0.5", "kd.schedule={warmup: 0.3}"], "and kd.schedule.warmup say the same option"),
        (["kd.schedule={warmup: 0.3}", "kd.schedule.warmup=0.1,0.5"], "and kd.schedule say the same option"),
        (["kd.label=a,b"], "says which objective it is"),
        (["kd.temperature=1..8:whole"], "is not a range"),
        (["kd.temperature=1..10000000000000000000:int"], "end at 2"),
    ],
)
def test_what_would_vary_nothing_is_refused(source: ConfigFile, vary: list[str], what: str):
    with pytest.raises(ConfigError, match=what):
        SearchSpace.of(vary, "kd", source)


def test_combinations_that_objectives_refuse_are_left_out(source: ConfigFile):
    """The width must be a multiple of the heads."""
    space = SearchSpace.of(["hcl.width=64,80", "hcl.heads=8,10"], "hcl", source)
    sampler = Sampler.of(space, source, None, 0, at_random=False)
    made: list[Try] = []
    for number in range(sampler.count):
        made.append(Try(number, sampler.values(number, made)))
    assert [tuple(one.values.values()) for one in made] == [(64, 8), (80, 8), (80, 10)]
    assert sampler.notes == ["the objectives refuse 1 of 4 combinations, which are left out"]
    with pytest.raises(ConfigError, match=r"hcl.*multiple"):
        SearchSpace.of(["hcl.width=64,80", "hcl.heads=8,7"], "hcl", source)
    first_refused = SearchSpace.of(["hcl.width=64,72", "hcl.heads=9,8", "hcl.weight=0.1..1"], "hcl", source)
    assert first_refused.first(source) == {"hcl.width": 64, "hcl.heads": 8, "hcl.weight": 0.1}


@pytest.mark.parametrize("at_random", [True, False])
def test_what_objectives_refuse_is_not_drawn_and_nothing_is_drawn_twice(source: ConfigFile, at_random: bool):
    """The width must be a multiple of the heads: 8 of 57 values will do, and more of 449 than there are tries."""
    few = Sampler.of(SearchSpace.of(["hcl.width=64..120:int"], "hcl", source), source, 9, 0, at_random=at_random)
    assert few.count == 8
    assert [few.values(number, []) for number in (0,)] == [{"hcl.width": 64}]
    made: list[Try] = []
    for number in range(few.count):
        made.append(Try(number, few.values(number, made)))
    assert sorted(one.values["hcl.width"] for one in made) == list(range(64, 121, 8))
    (note,) = few.notes
    assert "there are 8 tries and no more" in note
    many = Sampler.of(SearchSpace.of(["hcl.width=64..512:int"], "hcl", source), source, 12, 0, at_random=at_random)
    made = []
    for number in range(many.count):
        made.append(Try(number, many.values(number, made), "finished", (0.5,), 0.5))
    drawn = [one.values["hcl.width"] for one in made]
    assert len(set(drawn)) == 12
    assert not any(width % 8 for width in drawn)


def test_constants_of_the_configuration_outside_the_range_are_told(source: ConfigFile):
    space = SearchSpace.of(["kd.temperature=3..8", "kd.weight=1e-05,1"], "kd", source)
    sampler = Sampler.of(space, source, None, 0, at_random=True)
    (note,) = sampler.notes
    assert note.startswith("kd.temperature is 2.0 in the configuration, which is not in 3..8")
    assert 3 <= sampler.values(0, [])["kd.temperature"] <= 8


def tries(sampler: Sampler, count: int) -> list[Try]:
    """Tries one after another, each as good as its temperature is near 3."""
    made: list[Try] = []
    for number in range(count):
        values = sampler.values(number, made)
        score = 1 - abs(math.log(values["kd.temperature"] / 3)) / 10
        made.append(Try(number, values, "finished", (score,), score, "top1"))
    return made


def test_a_search_finds_what_is_good_and_is_the_same_twice(source: ConfigFile):
    space = SearchSpace.of(["kd.temperature=0.1..100:log", "kd.weight=1e-05,1"], "kd", source)
    sampler = Sampler.of(space, source, 30, 0, at_random=False)
    made = tries(sampler, 30)
    assert made == tries(sampler, 30)
    assert made[0].values == {"kd.temperature": 2, "kd.weight": 1e-05}  # the configuration's own
    late = [abs(math.log(one.values["kd.temperature"] / 3)) for one in made[20:]]
    drawn = tries(Sampler.of(space, source, 30, 0, at_random=True), 30)
    early = [abs(math.log(one.values["kd.temperature"] / 3)) for one in drawn[20:]]
    assert sum(late) < 0.7 * sum(early)
    assert all(0.1 <= one.values["kd.temperature"] <= 100 and one.values["kd.weight"] in (1e-05, 1) for one in made)


def test_a_search_bears_with_tries_that_are_stopped_failed_or_still_made(source: ConfigFile):
    space = SearchSpace.of(["kd.temperature=1..8", "hard-label.weight=1..3:int"], "kd", source)
    sampler = Sampler.of(space, source, None, 0, at_random=False)
    assert sampler.count == 20
    before = tries(sampler, STARTUP)
    before += [
        Try(5, before[0].values, "stopped", (0.1, 0.2)),
        Try(6, before[1].values, "failed"),
        Try(7, before[2].values),
    ]
    values = sampler.values(8, before)
    assert 1 <= values["kd.temperature"] <= 8
    assert values["hard-label.weight"] in (1, 2, 3)


def test_some_of_the_listed_are_never_made_twice(source: ConfigFile):
    space = SearchSpace.of(["kd.temperature=1,2,3,4", "kd.weight=1,2"], "kd", source)
    few, all_of_them = (Sampler.of(space, source, count, 3, at_random=False) for count in (3, None))
    made = tries(few, 3)
    for number in range(3, 8):  # more are asked for later
        made.append(Try(number, all_of_them.values(number, made)))
    assert len({tuple(one.values.values()) for one in made}) == 8
    assert len({one.values["kd.temperature"] for one in made[:3]}) > 1


def test_the_rule_is_optunas_median_pruner():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    epochs, drawn, stopped = 8, random.Random(0), 0
    warmup = math.ceil(WARMUP * epochs) + 1  # the first epoch in which a try may be stopped
    for _ in range(40):
        study = optuna.create_study(
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=FINISHED, n_warmup_steps=warmup),
        )
        others = [[drawn.random() for _ in range(epochs)] for _ in range(drawn.randint(0, 8))]
        for other in others:
            known = dict(enumerate(other, 1))
            study.add_trial(optuna.trial.create_trial(value=other[-1], intermediate_values=known))
        trial, curve = study.ask(), []
        for epoch in range(1, epochs):
            curve.append(drawn.random() / 1.5)
            trial.report(curve[-1], epoch)
            expected = trial.should_prune()
            assert is_hopeless(curve, others, epochs) == expected
            stopped += expected
    assert stopped > 20


def test_after_the_last_epoch_nothing_is_stopped():
    others = [[0.9, 0.9, 0.9, 0.9]] * FINISHED
    assert is_hopeless([0.1] * 3, others, 4)
    assert not is_hopeless([0.1] * 2, others, 4)
    assert not is_hopeless([0.1] * 4, others, 4)
    assert not is_hopeless([0.1] * 3, others[1:], 4)
    assert FINISHED == 4  # so docs/sweep.md says
    long = [[0.9] * 9] * FINISHED
    assert [is_hopeless([0.1] * epoch, long, 9) for epoch in (3, 4)] == [False, True]  # a third, says that page
    assert not is_hopeless([0.9] * 3, others, 4)  # equal to the median
    assert not is_hopeless([0.1] * 3, [*others[1:], [0.9, 0.9]], 4)  # one ended before, by patience
    assert not is_hopeless([], others, 4)


def test_a_score_of_zero_is_drawn_as_such(source: ConfigFile, monkeypatch: pytest.MonkeyPatch):
    figures: list[Any] = []
    monkeypatch.setattr(pipeline.sweeping.drawing, "png", lambda figure: figures.append(figure) or b"")
    space = SearchSpace.of(["kd.temperature=1..8"], "kd", source)
    pipeline.sweeping.drawing.drawn("", space, [Try(0, {"kd.temperature": 2}, "finished", (0.5, 0.0), 0.0)])
    (point,) = figures[0].axes[1].lines
    assert (*point.get_xdata(), *point.get_ydata()) == (2, 0)


def test_the_best_is_the_first_of_the_finished_ones():
    made = [Try(0, {}, "stopped", (0.9,)), Try(1, {}, "finished", (0.5,), 0.5), Try(2, {}, "finished", (0.5,), 0.5)]
    assert best_of(made) == made[1]
    assert best_of(made[:1]) is None


def test_the_score_is_that_of_the_weights_that_are_kept(tmp_path: Path):
    (tmp_path / "history.csv").write_text("epoch,loss,holdout_top1\n1,3,0.25\n2,2,0.75\n3,1,0.5\n")
    begun = Try(0, {}, error="of an earlier run")
    assert finished(begun, tmp_path, None).score == 0.5
    kept = finished(begun, tmp_path, 2)
    assert (kept.score, kept.curve, kept.scored, kept.error) == (0.75, (0.25, 0.75, 0.5), "top1", None)


def test_seeds_draw_differently(source: ConfigFile):
    space = SearchSpace.of(["kd.temperature=3..8"], "kd", source)
    drawn = [Sampler.of(space, source, 5, seed, at_random=True).values(3, []) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_optuna_is_told_of_earlier_tries(source: ConfigFile, monkeypatch: pytest.MonkeyPatch):
    """Scores of finished tries, curves of stopped ones, nothing of failed ones; and which are being made."""
    optuna = pytest.importorskip("optuna")
    studies, make = list[Any](), optuna.create_study

    def create_study(**options: Any) -> Any:
        studies.append(make(**options))
        return studies[-1]

    monkeypatch.setattr(optuna, "create_study", create_study)
    before = [
        Try(0, {"kd.temperature": 3}, "finished", (0.1, 0.3), 0.3),
        Try(1, {"kd.temperature": 4}, "stopped", (0.1, 0.2)),
        Try(2, {"kd.temperature": 5}, "failed", (0.4,)),
        Try(3, {"kd.temperature": 6}, "running"),
        Try(4, {"kd.temperature": 7}, "finished", (0.2,), 0.2),
    ]
    Sampler.of(SearchSpace.of(["kd.temperature=3..8"], "kd", source), source, 9, 0, at_random=False).values(5, before)
    (study,) = studies
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    states, (*told, asked) = optuna.trial.TrialState, study.trials
    assert [each.params["kd.temperature"] for each in told] == [3, 4, 5, 6, 7]
    assert [each.state for each in told] == [
        states.COMPLETE, states.PRUNED, states.PRUNED, states.RUNNING, states.COMPLETE,
    ]  # fmt: skip
    assert [each.value for each in told if each.state == states.COMPLETE] == [0.3, 0.2]
    assert [each.intermediate_values for each in told[1:3]] == [{1: 0.1, 2: 0.2}, {}]
    assert 3 <= asked.params["kd.temperature"] <= 8


def test_tries_that_are_being_made_are_kept_away_from(source: ConfigFile):
    """As if they had failed: else several at once would all look at one place."""
    pytest.importorskip("optuna")
    space = SearchSpace.of(["kd.temperature=1..100:log"], "kd", source)
    sampler = Sampler.of(space, source, 30, 0, at_random=False)
    known = [Try(i, {"kd.temperature": 1 + i}, "finished", (0.0,), 0.5 - abs(i - 5) / 20) for i in range(10)]
    alone = sampler.values(12, known)["kd.temperature"]
    others = [Try(10 + i, {"kd.temperature": alone + i / 10}, "running") for i in range(-5, 6)]
    beside = sampler.values(12, [*known, *others])["kd.temperature"]
    assert abs(math.log(beside / 6)) > abs(math.log(alone / 6))


def test_tries_are_read_by_their_numbers(tmp_path: Path):
    kept = Tries(tmp_path)
    for number in (10000, 2, 9999):
        kept.write(Try(number, {}))
    assert [one.number for one in kept.read()] == [2, 9999, 10000]
