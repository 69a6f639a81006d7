"""`pipeline doctor`: what is ok, a warning or a problem."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from pipeline.beginning import machine
from pipeline.beginning.machine import Finding, with_torch, without_torch
from pipeline.cli import main


def by_name() -> dict[str, Finding]:
    return {each.name: each for each in without_torch()}


def test_a_machine_that_runs_these_tests_has_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "requires_of", lambda: ["torch>=2.4", "numpy", "click", 'absent; extra == "hf"'])
    found = by_name()
    assert {each.state for each in found.values()} <= {"ok", "warning"}
    assert found["torch"].text == version("torch")
    assert "1 others" in found["packages"].text
    assert found["threads"].state == "ok"
    assert "without hf" in found["extras"].text
    assert "decant-kd[hf]" in str(found["extras"].fix)


def test_packages_that_are_missing_or_too_old_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "requires_of", lambda: ["no-such-package>=3", "numpy>=999"])
    found = by_name()
    assert (found["no-such-package"].state, found["numpy"].state) == ("problem", "problem")
    assert found["no-such-package"].fix == "pip install 'no-such-package>=3'"
    assert ">=999" in found["numpy"].text
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "problem  numpy" in result.stdout


def test_a_package_that_only_makes_things_fast_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "requires_of", lambda: ["numba>=999"])
    found = by_name()["numba"]
    assert (found.state, found.fix) == ("warning", "pip install 'numba>=999'")
    assert "large images are rendered slowly" in found.text


@pytest.mark.parametrize(("free", "state"), [(0.5e9, "problem"), (5e9, "warning"), (50e9, "ok")])
def test_a_small_disk_is_told(monkeypatch: pytest.MonkeyPatch, free: float, state: str) -> None:
    room = shutil.disk_usage(".")._replace(free=int(free))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)
    found = by_name()["disk"]
    assert found.state == state
    assert (found.fix is None) == (state == "ok")


def test_threads_beside_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    for asked, state in (("64", "warning"), ("1", "warning"), ("4", "ok"), ("", "ok")):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert by_name()["threads"].state == state


def test_a_folder_in_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = by_name()
    assert (found["git"].state, found["DVC"].state) == ("warning", "warning")
    assert "dvc init" in str(found["DVC"].fix)


def test_a_repository_that_takes_long_is_no_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(command: list[str], timeout: float, **options: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", slow)
    found = by_name()["git"]
    assert found.state == "warning"
    assert "within 20 s" in found.text


def test_of_a_checkout_that_is_not_installed_no_package_is_called_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "requires_of", list)
    assert by_name()["packages"].state == "warning"


def test_the_device_and_what_auto_means_on_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "none")
    device, precision = with_torch()
    assert (device.name, device.state) == ("device", "ok")
    assert device.text.startswith("cpu, ")
    assert "`auto` is" in precision.text
    monkeypatch.setattr(machine, "DRIVER", tmp_path)  # a driver, and a torch that finds no GPU
    device, _ = with_torch()
    assert device.state == "problem"
