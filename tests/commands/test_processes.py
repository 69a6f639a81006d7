"""Commands that `torchrun` has begun several times."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.commands.processes import begun_by_torchrun, together
from pipeline.errors import CacheMismatch
from pipeline.experiment.run_folder import of_processes, refuse_other_processes
from pipeline.publishing import fingerprint
from pipeline.publishing.artifacts import FINGERPRINT, scratch_folder

IDENTITY = {"artifact": "student", "seed": 0}


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment that torchrun makes for the first of two processes."""
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_other_commands_are_for_one_process(several: pytest.MonkeyPatch) -> None:
    """One of them says so."""
    first = CliRunner().invoke(main, ["evaluate"])
    assert (first.exit_code, first.stdout) == (1, "")
    assert "torchrun has begun `pipeline evaluate` several times at once" in first.stderr
    assert "do: start it without torchrun" in first.stderr
    several.setenv("LOCAL_RANK", "1")
    second = CliRunner().invoke(main, ["evaluate"])
    assert (second.exit_code, second.output) == (1, "")


def test_a_file_that_is_not_there_is_told_once(several: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before the processes have joined."""
    command = ["train-student", "--student", "a", "--objectives", "b", "--config", str(tmp_path / "none.yaml")]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 2
    assert "none.yaml: cannot be read" in first.stderr
    several.setenv("LOCAL_RANK", "1")
    second = CliRunner().invoke(main, command)
    assert (second.exit_code, second.output) == (2, "")


def test_a_process_of_its_own_is_alone(several: pytest.MonkeyPatch) -> None:
    assert begun_by_torchrun()
    several.setenv("WORLD_SIZE", "1")
    assert not begun_by_torchrun()
    with together() as world:
        assert world.share.size == 1


def test_the_identity_of_what_one_process_trains_says_nothing_of_processes() -> None:
    assert of_processes(IDENTITY, 1) == IDENTITY
    assert of_processes(IDENTITY, 2) == {**IDENTITY, "processes": 2}


def test_what_other_processes_began_is_not_begun_anew(tmp_path: Path) -> None:
    target = tmp_path / "seed-0"
    refuse_other_processes(target, IDENTITY, 2, replace=False)
    begun = scratch_folder(target, fingerprint(of_processes(IDENTITY, 3)))
    scratch_folder(target, fingerprint({"artifact": "another"})).mkdir()  # of other settings: it stays beside
    refuse_other_processes(target, IDENTITY, 2, replace=False)
    begun.mkdir()
    for replace in (False, True):
        with pytest.raises(CacheMismatch) as refused:
            refuse_other_processes(target, IDENTITY, 1, replace=replace)
        said = str(refused.value)
        assert "another number of processes has begun to train this student" in said
        assert f"where: {begun}\n  expected: 3 processes\n  got: 1 process\n" in said
        assert "torchrun --standalone --nproc-per-node 3 -m pipeline" in said
        assert "delete the folder" in said
    refuse_other_processes(target, IDENTITY, 3, replace=False)


def test_what_other_processes_trained_is_replaced_only_if_that_is_said(tmp_path: Path) -> None:
    (tmp_path / FINGERPRINT).write_text(fingerprint(IDENTITY))
    refuse_other_processes(tmp_path, IDENTITY, 1, replace=False)
    refuse_other_processes(tmp_path, IDENTITY, 2, replace=True)
    with pytest.raises(CacheMismatch, match=r"(?s)has trained this student.*got: 2 processes\n.*--replace"):
        refuse_other_processes(tmp_path, IDENTITY, 2, replace=False)
