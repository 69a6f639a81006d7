"""Refuses settings that only a GPU can follow, where there is none."""

from __future__ import annotations

from pipeline.errors import ConfigError, Problem
from pipeline.models.device import choose_device
from pipeline.objectives import Objective, ObjectiveSet
from pipeline.training.config import TrainConfig


def refuse_without_gpu(config: TrainConfig, key: str = "train") -> None:
    """Raise ConfigError for settings that the device, or another setting, rules out.

    Args:
        config: of the training.
        key: the section of `config`, for errors.
    """
    if not (config.capture or config.compile):
        return
    device, problems = choose_device(config.device), []
    if device.type != "cuda" and config.capture:
        fix = f"leave {key}.capture out: a CPU has no launches to save"
        problems.append(Problem(f"{key}.capture", "records steps on a GPU", "a GPU", str(device), fix))
    if device.type != "cuda" and config.compile:
        fix = f"leave {key}.compile out: on CPUs it gains less than compiling takes"
        problems.append(Problem(f"{key}.compile", "compiles networks for a GPU", "a GPU", str(device), fix))
    if config.capture and config.accumulate > 1:
        what, fix = "records steps of one batch", "leave accumulate out, or capture"
        problems.append(Problem(f"{key}.capture", what, "accumulate: 1", f"accumulate: {config.accumulate}", fix))
    if problems:
        raise ConfigError(problems)


def refuse_prepared(objectives: ObjectiveSet) -> None:
    """Raise ConfigError for objectives whose steps cannot be recorded: the host prepares each of them."""
    pairs = zip(objectives.entries, objectives.members, strict=True)
    found = [entry.label for entry, member in pairs if isinstance(member, Objective) and member.is_prepared()]
    if found:
        what = "records steps, and the host prepares every step of some objectives"
        raise ConfigError([Problem("train.capture", what, got=", ".join(found), fix="leave train.capture out")])
