"""An experiment whose store lies on object storage: the same answers, students and figures; DVC tracks a pointer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from distributed import LocalCluster
from experiment import begin, content, source, student
from object_server import Bucket

from pipeline.cli import main
from pipeline.commands import check, dvc_file, inspect, verify
from pipeline.commands.inspect import Sheet
from pipeline.errors import CacheError, CacheMismatch, CacheNotFound
from pipeline.inspection.origin import SampleCheck
from pipeline.planning import plan_lines
from pipeline.store.location import store_path
from pipeline.store.reader import TeacherCache
from pipeline.store.statistics import kept_moments
from pipeline.yaml_text import parse_yaml
from stages import cache_teacher, evaluate

CACHES = Path("artifacts/caches")
CHECK = SampleCheck(views=1000)
STORES = ("tiny", "tiny.holdout", "tiny.evaluation")


def pointer_of(url: str) -> Path:
    """Where the pointer to a store lies."""
    return CACHES / f"{url.replace('://', '/')}.json"


def remote(bucket: Bucket, *overrides: str) -> tuple[str, ...]:
    return (f"store.path={bucket.url('caches/tiny.zarr')}", *overrides)


@pytest.fixture
def moved(here: Path, bucket: Bucket) -> Path:
    """`here`, its stores on object storage and nowhere else."""
    for name in STORES:
        bucket.upload(CACHES / f"{name}.zarr", f"caches/{name}.zarr")
    shutil.move(CACHES, "moved")
    return here


def test_the_stores_are_those_that_folders_would_hold_and_have_pointers(here: Path, bucket: Bucket) -> None:
    for part in ("training", "evaluation"):
        cache_teacher.run(source(*remote(bucket)), part=part, replace=False, wait=False)  # type: ignore[arg-type]
    for name in STORES:
        objects, folder = bucket.below(f"caches/{name}.zarr/"), content(CACHES / f"{name}.zarr")
        root, local = (json.loads(files.pop("zarr.json"))["attributes"] for files in (objects, folder))
        assert objects == folder
        assert root["fingerprint"] == local["fingerprint"]
        pointer = json.loads(pointer_of(bucket.url(f"caches/{name}.zarr")).read_text())
        assert pointer["url"] == bucket.url(f"caches/{name}.zarr")
        assert pointer["fingerprint"] == root["fingerprint"]
        assert pointer["objects"] == len(objects) + 1
        assert pointer["bytes"] == sum(bucket.sizes(f"caches/{name}.zarr/").values())
    pointer_file = pointer_of(bucket.url("caches/tiny.zarr"))
    before, text = len(bucket.requests("PUT")), pointer_file.read_text()
    pointer_file.unlink()  # as DVC does before it runs a stage again
    cache_teacher.run(source(*remote(bucket)), part="training", replace=False, wait=False)
    assert pointer_file.read_text() == text
    assert len(bucket.requests("PUT")) == before


def same_objects(bucket: Bucket) -> None:
    """The bucket has the stores of the working directory, but for the roots' provenance, and nothing else."""
    for name in STORES:
        objects, folder = bucket.below(f"caches/{name}.zarr/"), content(CACHES / f"{name}.zarr")
        assert objects | {"zarr.json": b""} == folder | {"zarr.json": b""}
    assert all(key.startswith(tuple(f"caches/{name}.zarr/" for name in STORES)) for key in bucket.sizes())


def test_workers_of_a_cluster_put_what_a_folder_would_hold(here: Path, bucket: Bucket) -> None:
    options: dict[str, Any] = {"memory_limit": 0, "dashboard_address": "127.0.0.1:0", "silence_logs": 60}
    with LocalCluster(n_workers=2, threads_per_worker=2, processes=False, **options) as cluster:
        arguments = ("--scheduler", cluster.scheduler_address, "--set", *remote(bucket))
        main(["cache-teacher", "-c", "tiny.yaml", *arguments], standalone_mode=False)
    same_objects(bucket)
    (run,) = TeacherCache.open(bucket.url("caches/tiny.zarr")).manifest.provenance["runs"]
    assert [kind["units"] for kind in run["workers"]] == [6]


@pytest.mark.long
def test_processes_put_what_a_folder_would_hold(here: Path, bucket: Bucket) -> None:
    """Workers of the command itself, with its environment: the server is in the process of this test."""
    command = [sys.executable, "-m", "pipeline.cli", "cache-teacher", "-c", "tiny.yaml", "--workers", "2"]
    result = subprocess.run(
        [*command, "--set", *remote(bucket)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    same_objects(bucket)


@pytest.mark.parametrize("objectives", ["kd", "lfcc"])
def test_a_student_is_the_one_that_a_folder_gives(
    moved: Path, bucket: Bucket, objectives: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("moved", CACHES)
    local = student("small", objectives, output=Path("local"))
    shutil.rmtree(CACHES)
    afar = student("small", objectives, *remote(bucket), output=Path("afar"))
    assert "is fetched as it is read: up to" in capsys.readouterr().out
    for name in ("student.safetensors", ".fingerprint"):
        assert (afar / name).read_bytes() == (local / name).read_bytes()
    ours, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (local, afar))
    assert ours["holdout"] == theirs["holdout"]
    written = parse_yaml((afar / "config.yaml").read_text(), "config")
    assert written["store"]["path"] == bucket.url("caches/tiny.zarr")


def test_evaluation_reads_the_caches_beside_it(moved: Path, bucket: Bucket) -> None:
    student("small", "hard", *remote(bucket))
    figures = []
    for overrides in (remote(bucket), ("store.path=moved/tiny.zarr",)):
        evaluate.run(source(*overrides))
        result = json.loads(Path("artifacts/tiny/evaluation.json").read_text())
        figures.append([result["teacher"]["metrics"], *(entry["metrics"] for entry in result["students"])])
    assert figures[0] == figures[1]
    assert figures[0][1]["agreement"] is not None


def test_students_of_another_cache_read_it_from_there(moved: Path, bucket: Bucket) -> None:
    other = f"caches=[{{path: '{bucket.url('caches/tiny.zarr')}'}}]"
    student("small", "kd", other)
    assert bucket.requests("GET", "tiny.zarr/logits")
    assert bucket.requests("GET", "tiny.holdout.zarr/logits")


def test_a_store_that_its_pointer_does_not_name_is_refused(moved: Path, bucket: Bucket) -> None:
    pointer = pointer_of(bucket.url("caches/tiny.zarr"))
    pointer.parent.mkdir(parents=True)
    fingerprint = (Path("moved/tiny.zarr/.fingerprint")).read_text().strip()
    good = {"url": bucket.url("caches/tiny.zarr"), "fingerprint": fingerprint}
    for wrong in ({"fingerprint": "0" * 64}, {"url": "s3://elsewhere/tiny.zarr"}):
        pointer.write_text(json.dumps(good | wrong))
        with pytest.raises(CacheMismatch, match=r"not the one that its pointer names(.|\n)*cache-teacher"):
            student("small", "kd", *remote(bucket))
    for text in ("", "[]", "{}", "[" * 100_000):
        pointer.write_text(text)
        with pytest.raises(CacheMismatch, match="cannot be read"):
            student("small", "kd", *remote(bucket))
    pointer.write_text(json.dumps(good))
    student("small", "kd", *remote(bucket))


def test_nothing_there_yet(here: Path, bucket: Bucket) -> None:
    with pytest.raises(CacheNotFound, match=r"s3://(.|\n)*cache-teacher"):
        student("small", "kd", *remote(bucket))


def test_check_says_what_it_costs(
    here: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_lines, "MANY_FILES", 10)
    check.run(source(), as_json=True)
    local = json.loads(capsys.readouterr().out)
    check.run(source(*remote(bucket)), as_json=True)
    facts = json.loads(capsys.readouterr().out)
    # Six units of six arrays, and of three static; a receipt for each; metadata of nine arrays and three groups;
    # ledger and fingerprint.
    assert facts["requests"]["puts"] == 6 * 6 + 3 + 7 + 9 + 3 + 2
    assert facts["requests"]["gets"] == 3 * 5
    assert facts["free_bytes"] is None
    assert local["requests"] is None
    caches = [one for one in facts["artifacts"] if one["name"].endswith(" cache")]
    assert [one["path"] for one in caches] == [bucket.url(f"caches/{name}.zarr") for name in STORES]
    assert all(one["remaining_bytes"] == one["bytes"] > 0 for one in caches)  # nothing is there yet
    # What lies on object storage is on nobody's disk, and has no copy in DVC's cache.
    others = sum(one["remaining_bytes"] for one in facts["artifacts"] if one not in caches)
    assert sum(disk["needed_bytes"] for disk in facts["disks"]) == others
    check.run(source(*remote(bucket)), as_json=False)
    printed = capsys.readouterr().out
    assert "requests  about 60 puts to make it, 15 gets" in printed
    assert "DVC slow" not in printed
    for name in STORES:
        bucket.upload(CACHES / f"{name}.zarr", f"caches/{name}.zarr")
    bucket.server.requests.clear()
    check.run(source(*remote(bucket)), as_json=False)
    assert capsys.readouterr().out.count(", there already") >= 3
    assert not bucket.requests("PUT")
    bucket.server.gate = lambda *request: ("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>")
    with pytest.raises(CacheError, match="access to object storage is denied"):
        check.run(source(*remote(bucket)), as_json=False)


def stop_at(bucket: Bucket, key: str) -> None:
    """Puts of a key and all that comes after it fail."""
    failed = []

    def gate(method: str, path: str, environment: dict[str, Any]) -> tuple[str, bytes] | None:
        if method == "PUT" and (failed or key in path):
            failed.append(path)
            return "403 Forbidden", b"<Error><Code>AccessDenied</Code><Message>no more</Message></Error>"
        return None

    bucket.server.gate = gate


def stopped(bucket: Bucket) -> None:
    """Three of six units are made, and then everything is refused, the claim's release too."""
    stop_at(bucket, "units/1-0")
    with pytest.raises(CacheError, match="access to object storage is denied"):
        cache_teacher.run(source(*remote(bucket)), part="training", replace=False, wait=False)
    bucket.server.gate = lambda *request: None


def test_check_counts_what_is_done_of_a_cache_that_is_being_made(
    here: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(bucket)
    plan = TeacherCache.open(CACHES / "tiny.zarr").manifest.layout
    done = sum(map(plan.unit_bytes, ("static", "0/0", "0/1", "0/2")))
    for overrides, left in (((), plan.total_bytes - done), (("signals.embedding=null",), None)):
        capsys.readouterr()
        check.run(source(*remote(bucket), *overrides), as_json=True)
        facts = json.loads(capsys.readouterr().out)["artifacts"][0]
        assert facts["remaining_bytes"] == (left or facts["bytes"])


def test_inspect_says_what_is_there_and_what_is_being_made(
    here: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = store_path(bucket.url("caches/tiny.zarr"))
    with pytest.raises(CacheNotFound, match="there is no teacher cache"):
        inspect.run(source(), target, sheet=None, as_json=False)
    stopped(bucket)
    capsys.readouterr()
    inspect.run(source(), target, sheet=None, as_json=False)
    printed = capsys.readouterr().out
    assert f"{target}: an unfinished teacher cache" in printed
    assert "3 of 6 units, 50%" in printed
    assert "worked on by process" in printed
    assert "another may go on" in printed
    assert "features/block2" in printed
    claim = "caches/.tiny.zarr.partial/claim.json"
    bucket[claim] = bucket[claim].replace(b'"token": "', b'"token": null, "was": "')  # as if it had been let go
    inspect.run(source(), target, sheet=None, as_json=False)
    assert "to go on, run the same command again" in capsys.readouterr().out
    cache_teacher.run(source(*remote(bucket)), part="training", replace=False, wait=False)
    capsys.readouterr()
    inspect.run(source(*remote(bucket)), None, sheet=Sheet(2, 2), as_json=True)
    (facts,) = json.loads(capsys.readouterr().out)
    manifest = TeacherCache.open(target).manifest
    assert (facts["state"], facts["fingerprint"]) == ("finished", manifest.fingerprint)
    sizes = bucket.sizes("caches/tiny.zarr/")
    assert (facts["files"], facts["bytes"]) == (len(sizes), sum(sizes.values()))
    assert Path("tiny.png").read_bytes().startswith(b"\x89PNG")
    assert "statistics" not in facts
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "home"))
    kept_moments(TeacherCache.open(target), "embedding")
    inspect.run(source(*remote(bucket)), None, sheet=None, as_json=True)
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["statistics"] == ["embedding"]
    inspect.run(source(*remote(bucket)), None, sheet=None, as_json=False)
    folder = here / "home/decant/statistics" / manifest.fingerprint
    assert f"mean and covariance of embedding, on this machine, in {folder}\n" in capsys.readouterr().out
    assert (folder / "embedding.safetensors").exists()


def test_verify_reads_all_of_it_and_asks_the_teacher(
    moved: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    verify.run(source(*remote(bucket)), role="all", check=CHECK, as_json=True)
    value = json.loads(capsys.readouterr().out)
    assert value["fine"]
    for name, each in zip(STORES, value["caches"], strict=True):
        assert each["path"] == bucket.url(f"caches/{name}.zarr")
        assert each["files"]["bytes"] == sum(bucket.sizes(f"caches/{name}.zarr/").values())
        assert each["views"]["other_pixels"] == 0
        assert {one["equal"] for one in each["teacher"]["deviations"]} == {1.0}
    key = "caches/tiny.zarr/embedding/c/1/2/0"
    bucket[key] = bucket[key][:-5] + b"12345"
    with pytest.raises(CacheError, match=r"1 of 3 teacher caches cannot be trusted(.|\n)*s3://"):
        verify.run(source(*remote(bucket)), role="all", check=CHECK, as_json=True)
    damaged = json.loads(capsys.readouterr().out)["caches"][0]["files"]["damaged"]
    assert damaged == {"embedding/c/1/2/0": "its checksum is not that of its content"}
    address = bucket.url("caches/tiny.holdout.zarr")
    result = CliRunner().invoke(main, ["verify", address])
    assert (result.exit_code, f"{address}\n  files " in result.output) == (0, True), result.output
    result = CliRunner().invoke(main, ["verify", "s3:/bucket/x.zarr"])
    assert result.exit_code == 2
    assert "an address has two slashes: s3://bucket/x.zarr" in result.output


def test_students_of_several_caches_here_and_there(
    among: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"more.zarr": "more/cache.zarr", "other.zarr": "other/cache.zarr"}
    for folder, key in {**places, "other.holdout.zarr": "other/cache.holdout.zarr"}.items():
        bucket.upload(Path(folder), key)

    def caches(more: str, other: str) -> str:
        tiny = "{path: artifacts/caches/tiny.zarr}"
        third = f"{{path: '{other}', views: [0, 1, 3], role: mean-probabilities}}"
        return f"caches=[{tiny}, {{path: '{more}', views: [3]}}, {third}]"

    local = student("small", "lfcc", caches("more.zarr", "other.zarr"), output=Path("local"))
    afar = caches(*map(bucket.url, places.values()))
    capsys.readouterr()
    check.run(source(afar), as_json=False)
    assert capsys.readouterr().out.count(": fits") == 3
    mixed = student("small", "lfcc", afar, output=Path("mixed"))
    assert capsys.readouterr().out.count("is fetched as it is read") == 2
    assert (mixed / "student.safetensors").read_bytes() == (local / "student.safetensors").read_bytes()
    assert (mixed / ".fingerprint").read_bytes() == (local / ".fingerprint").read_bytes()


def written(*overrides: str) -> Any:
    text = Path("tiny.yaml").read_text()
    for override in overrides:
        key, _, value = override.partition("=")
        assert key in ("store.path", "caches")
        text = text.replace("path: artifacts/caches/tiny.zarr", f"path: {value}") if "." in key else text
        text += "" if "." in key else f"caches: {value}\n"
    Path("tiny.yaml").write_text(text)
    dvc_file.run(source(), Path("dvc.yaml"))
    return parse_yaml(Path("dvc.yaml").read_text(), "dvc.yaml")["stages"]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(begin(tmp_path))
    return tmp_path


def outs(stage: dict[str, Any]) -> list[str]:
    return [path for out in stage["outs"] for path in out]


def test_dvc_tracks_pointers(empty: Path) -> None:
    stages = written("store.path=s3://bucket/caches/big.zarr")
    places = (f"artifacts/caches/s3/bucket/caches/big{what}.zarr.json" for what in ("", ".holdout", ".evaluation"))
    training, holdout, evaluation = places
    assert outs(stages["cache-teacher"]) == [training]
    assert outs(stages["cache-evaluation"]) == [holdout, evaluation]
    assert stages["train-students-kd"]["deps"] == ["data.h5", training, holdout]
    assert evaluation in stages["evaluate"]["deps"]
    assert "s3://" not in Path("dvc.yaml").read_text()


def test_a_store_that_was_made_elsewhere_is_tracked_if_its_pointer_is_here(empty: Path) -> None:
    stages = written("caches=[{path: 's3://bucket/caches/big.zarr'}]")
    assert stages["train-students-kd"]["deps"] == ["data.h5"]
    pointer = pointer_of("s3://bucket/caches/big.zarr")
    pointer.parent.mkdir(parents=True)
    pointer.write_text("{}")
    stages = written()
    assert stages["train-students-kd"]["deps"] == ["data.h5", "artifacts/caches/s3/bucket/caches/big.zarr.json"]
    assert outs(stages["cache-teacher"]) == ["artifacts/caches/tiny.zarr"]
