"""`make bench-gpu` in small, on a CPU: all of it runs, deadlines are kept, and what a part left out is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

gpu = pytest.importorskip("gpu")
performance = pytest.importorskip("performance")
from gpu_parts import pieces, record, running  # noqa: E402
from gpu_parts.parts import PARTS  # noqa: E402
from gpu_parts.sizes import FULL, SMOKE  # noqa: E402

LEFT_OUT = ("batch 64", "batch 512", "ViT", "ResNet-20, kd", "lfcc", "ResNet-20, hard", "197 tokens", "ResNet-20, step")
TINIEST = replace(SMOKE, rounds=1, compared=1, samples=32, photographs=4, left_out=(*SMOKE.left_out, *LEFT_OUT))
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All parts, in this process, with the tiniest sizes."""
    folder = tmp_path_factory.mktemp("gpu")
    place = running.Place(folder, TINIEST, torch.device("cpu"))
    with torch.random.fork_rng(devices=[]), pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "PATIENT", 10_000)
        patch.setattr(torch, "compile", lambda function, **_: function)  # takes seconds
        path, failed = gpu.measure(PARTS, place, folder / "results", forked=False)
    assert failed == []
    assert path.name == "cpu.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_all_parts_run_and_every_figure_of_the_page_is_there_or_says_why_not(results: dict[str, Any]) -> None:
    assert list(results["parts"]) == [part.name for part in PARTS]
    for part in PARTS:
        kept = results["parts"][part.name]
        assert kept["status"] == "done", kept
        for name in part.shown:
            assert not performance.cell(kept, name).startswith("done:"), f"{part.name}: {name}"


def test_nothing_but_what_a_cpu_cannot_do_is_left_out(results: dict[str, Any]) -> None:
    reasons = {reason for part in results["parts"].values() for reason in part["skipped"].values()}
    assert {reason for reason in reasons if not reason.startswith("needs CUDA")} == {record.NOT_THESE}


def test_what_has_to_be_the_same_is_the_same(results: dict[str, Any]) -> None:
    parts = results["parts"]
    told = {f"{part}: {name}": value for part in parts for name, value in parts[part]["facts"].items()}
    same = [name for name, value in told.items() if value is True]
    for what in ("ResNet-20, crcd: same bits", "same bits as alone", "the device makes the same pixels"):
        assert any(what in name for name in same), what
    assert told["batches: resident batches are the loader's"]
    assert told["batches: resident batches: same bits after training"]
    assert told["optimisers: fused: skips a step that is not finite"]
    assert told["twice-the-same: ResNet-20, crcd"]
    assert results["smoke"]
    assert results["machine"]["torch"] == torch.__version__


def test_what_a_deep_network_says_fits_into_a_cache() -> None:
    """With batch normalisation as it is built, the last maps of a ResNet-56 exceed float16."""
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = pieces.calibrated(FULL.teacher, 4)(images)
    assert found.features["block3"].abs().max() < 1000
    assert found.logits.isfinite().all()


def late(note: Any, place: Any) -> None:
    note.fact("begun", True)
    time.sleep(60)


def dying(note: Any, place: Any) -> None:
    note.measure("before", "s", [3.0, 1.0, 2.0])
    os._exit(3)


def raising(note: Any, place: Any) -> None:
    note.rate("before", "/s", 6, [1.0, 2.0, 3.0])
    raise ValueError("no such kernel\nand more")


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_part_that_is_late_dies_or_raises_keeps_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "GRACE", 0.2)
    place = running.Place(tmp_path, TINIEST, torch.device("cpu"))
    found = running.apart(late, place, 0.3)
    assert (found["status"], found["facts"]) == ("late", {"begun": True})
    assert "deadline" in found["reason"]
    found = running.apart(dying, place, 30)
    assert (found["status"], found["reason"]) == ("failed", "the process ended with 3")
    assert found["measures"]["before"]["median"] == 2.0
    for found in (running.apart(raising, place, 30), running.here(raising, place, 30)):
        assert (found["status"], found["reason"]) == ("failed", "ValueError: no such kernel")
        assert found["measures"]["before"]["values"] == [6.0, 3.0, 2.0]


def test_what_has_no_time_or_raises_is_left_out_by_name() -> None:
    lines: list[dict[str, Any]] = []
    note = record.Note(lines.append, 10)
    assert note.time_for("short", 5)
    assert not record.Note(lines.append, 10, ["batch 64"]).time_for("ViT, batch 64, kd")
    assert not note.time_for("long", 20)
    with note.trying("wrong"):
        raise RuntimeError("not on this device")
    note.measure("error", "x", [1.0, float("nan")])
    note.ratio("twice", [2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    kept = record.part_record(lines, "done", None, 1.0)
    assert list(kept["skipped"]) == ["ViT, batch 64, kd", "long", "wrong", "error"]
    assert kept["skipped"]["wrong"] == "RuntimeError: not on this device"
    assert record.figure(kept["measures"]["twice"]) == "2 [2, 3] x"


def test_a_part_that_is_measured_again_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    for name, text in (("one", "old"), ("two", "old"), ("one", "new")):
        record.Results(path, {"device": "some"}, smoke=False).add(name, {"status": text})
    kept = json.loads(path.read_text())
    assert {name: part["status"] for name, part in kept["parts"].items()} == {"one": "new", "two": "old"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_without_a_gpu_it_says_what_can_be_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "keep_freed_memory", lambda: None)  # of this process, which has other tests
    done = CliRunner().invoke(gpu.main, ["--results", str(tmp_path)])
    assert done.exit_code == 1
    assert "--smoke" in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_smoke(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--smoke", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "cpu.json").read_text())["parts"]
    assert {name: part["status"] for name, part in parts.items()} == {part.name: "done" for part in PARTS}
