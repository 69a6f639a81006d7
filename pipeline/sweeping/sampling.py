"""Chooses the constants of the next try: all that are listed, at random, or where earlier tries were good (Optuna).

A choice depends on the sweep's seed, the number of the try and the tries before it alone. So a sweep that runs one try
at a time and is interrupted makes the same tries as one that is not.
"""

from __future__ import annotations

import importlib.util
import json
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError, Problem
from pipeline.experiment.source import ConfigFile
from pipeline.sweeping.axes import Choices, Range
from pipeline.sweeping.space import LISTED_MOST, Constants, SearchSpace
from pipeline.sweeping.tries import Try

STARTUP = 5
"""So many tries are drawn at random before earlier ones count."""

DEFAULT_TRIES = 20
"""How many tries there are where a range varies."""

REDRAWS, RELEARNT = 100, 5
"""So often constants are drawn anew that were tried, or that an objective refuses; so many of these ask Optuna."""


@dataclass(frozen=True)
class Sampler:
    """Chooses constants.

    Args:
        space: what varies.
        count: how many tries there will be.
        seed: of the choices.
        learns: whether earlier tries count, where not all values are listed.
        first: the constants of the first try, those of the configuration; None for any.
        listed: all tries that there are; None where they are drawn.
        few: the same where some of them are drawn, and there are few; else None.
        source: the configuration: what its objectives refuse is not drawn. None takes all that is drawn.
        notes: sentences for people.
    """

    space: SearchSpace
    count: int
    seed: int = 0
    learns: bool = True
    first: Constants | None = None
    listed: Sequence[Constants] | None = None
    few: Sequence[Constants] | None = None
    source: ConfigFile | None = None
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, space: SearchSpace, source: ConfigFile, count: int | None, seed: int, *, at_random: bool) -> Sampler:
        """Make a sampler.

        Args:
            space: what varies.
            source: the configuration, whose own constants are tried first where a range varies.
            count: how many tries; None for all that are listed, or else 20. Of fewer whole numbers each is tried.
            seed: of the choices.
            at_random: whether to draw at random, without a look at earlier tries.

        Raises ConfigError for more tries than there are, and if Optuna is needed and not installed.
        """
        every = space.listed
        if every is not None:
            listed = [each for each in every if len(every) > LISTED_MOST or not space.refused(source, each)]
            left_out = (
                f"the objectives refuse {len(every) - len(listed)} of {len(every)} combinations, which are left out"
            )
            if count is not None and count > len(listed):
                what = f"the listed values make {len(listed)} tries"
                fix = "leave --tries out, list more values, or give a range"
                raise ConfigError([Problem("--tries", what, f"at most {len(listed)}", str(count), fix)])
            notes = [left_out] if len(listed) < len(every) else []
            return cls(space, count or len(listed), seed, learns=False, listed=listed, notes=notes)
        wanted = count or DEFAULT_TRIES
        few = space.few(source, wanted)
        if few is not None and len(few) <= wanted:
            note = f"there are {len(few)} tries and no more, so each is made once"
            return cls(space, len(few), seed, learns=False, listed=few, notes=(note,) if len(few) < wanted else ())
        if not at_random and importlib.util.find_spec("optuna") is None:
            fix = "pip install 'decant-kd[sweep]'; or --random draws without it; or list values, such as 1,2,4"
            raise ConfigError([Problem("--vary", "a range is searched with Optuna, which is not installed", fix=fix)])
        own = space.configured(source)
        notes = [
            f"{key} is {json.dumps(own[key])} in the configuration, which is not in {space.texts[key]}: "
            "the first try is drawn at random, too"
            for key, axis in space.axes.items()
            if not axis.holds(own[key])
        ]
        first = None if notes else own
        return cls(space, wanted, seed, not at_random, first, few=few, source=source, notes=tuple(notes))

    def values(self, number: int, before: Sequence[Try]) -> Constants:
        """Return the constants of a try.

        Args:
            number: of the try.
            before: the tries that were begun before it.

        Raises ConfigError if the objectives refuse whatever is drawn.
        """
        made = [one.values for one in before]
        if self.listed is not None:
            listed = list(self.listed)
            if self.count < len(listed):  # some of all: not those of the first value of the first key alone
                random.Random(self.seed).shuffle(listed)
            return next(values for values in listed if values not in made)
        if number == 0 and self.first is not None:
            return self.first
        again: Constants | None = None
        for values in self._drawn(number, before):
            if self.source is not None and (refused := self.space.refused(self.source, values)):
                continue
            if values not in made:
                return values
            again = values
        left = [values for values in self.few or () if values not in made]
        if left:
            return left[0]
        if again is None:
            raise ConfigError(refused)
        return again  # of a range with fewer numbers of four digits than tries

    def _drawn(self, number: int, before: Sequence[Try]) -> Iterator[Constants]:
        """Yield constants for a try, one after another, of which the first that will do is taken."""
        drawn = random.Random(f"{self.seed}/{number}")
        for place in range(REDRAWS):
            if self.learns and number >= STARTUP and place < RELEARNT:
                yield self._learnt(f"{number}/optuna" + (f"/{place}" if place else ""), before)
            else:
                yield {
                    key: axis.at(drawn.random()) if isinstance(axis, Range) else drawn.choice(axis.values)
                    for key, axis in self.space.axes.items()
                }

    def _learnt(self, which: str, before: Sequence[Try]) -> Constants:
        """Ask Optuna's estimator of Parzen windows, which is told of all tries before. which: part of the seed."""
        import optuna
        from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
        from optuna.trial import TrialState, create_trial

        def distribution(axis: Range | Choices) -> BaseDistribution:
            if isinstance(axis, Choices):
                return CategoricalDistribution(tuple(range(len(axis.values))))  # lists are no categories to Optuna
            if axis.whole:
                return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
            return FloatDistribution(axis.low, axis.high, log=axis.log)

        axes = self.space.axes
        distributions = {key: distribution(axis) for key, axis in axes.items()}
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of versions that call some of it experimental
                seed = random.Random(f"{self.seed}/{which}").getrandbits(31)
                sampler = optuna.samplers.TPESampler(
                    seed=seed, n_startup_trials=0, multivariate=len(axes) > 1, constant_liar=True
                )
                study = optuna.create_study(direction="maximize", sampler=sampler)
                for one in before:
                    params = {key: _told(axes[key], value) for key, value in one.values.items()}
                    state: dict[str, Any] = {"state": TrialState.RUNNING}
                    if one.state == "finished" and one.score is not None:
                        state = {"state": TrialState.COMPLETE, "value": one.score}
                    elif one.state in ("stopped", "failed"):  # one without any score is the worst to it
                        scores = dict(enumerate(one.curve, 1)) if one.state == "stopped" else {}
                        state = {"state": TrialState.PRUNED, "intermediate_values": scores}
                    study.add_trial(create_trial(params=params, distributions=distributions, **state))
                asked = study.ask(distributions).params
        finally:
            optuna.logging.set_verbosity(verbosity)
        return {key: _meant(axes[key], value) for key, value in asked.items()}


def _told(axis: Range | Choices, value: Any) -> Any:
    """Return a constant as Optuna knows it."""
    if isinstance(axis, Choices):
        return axis.values.index(value)
    return int(value) if axis.whole else float(value)


def _meant(axis: Range | Choices, value: Any) -> Any:
    """Return the constant that Optuna means."""
    return axis.values[value] if isinstance(axis, Choices) else axis.written(value)
