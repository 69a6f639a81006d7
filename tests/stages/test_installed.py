"""Decant without its source tree, from a wheel: its dvc.yaml depends on its version instead of its code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from experiment import begin, source

from pipeline.cli import VERSION, main
from pipeline.commands import dvc_file
from pipeline.yaml_text import parse_yaml

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # DVC's own
    from dvc.repo import Repo

ROOT = Path(__file__).resolve().parents[2]
MAKING = ("prepare-data", "train-teacher", "cache-teacher", "cache-evaluation")


def commands(folder: Path) -> list[str]:
    """What the stages of a dvc.yaml run."""
    return [stage["cmd"] for stage in parse_yaml((folder / "dvc.yaml").read_text(), "dvc.yaml")["stages"].values()]


def test_a_version_is_named_where_there_is_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(begin(tmp_path))
    for version, program in (("3.0", "pipeline --require-version 3.0 "), ("3.1", "pipeline --require-version 3.1 ")):
        monkeypatch.setattr("pipeline.dvc_file.stage.installed_version", lambda version=version: version)
        before = dvc_file.outdated(source().read(dvc_file.ExperimentConfig), source())
        assert before == ([] if version == "3.0" else [Path("dvc.yaml")])  # check names it after an upgrade
        dvc_file.run(source(), Path("dvc.yaml"))
        assert all(command.startswith(program) for command in commands(tmp_path))
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/cli.py").touch()
    dvc_file.run(source(), Path("dvc.yaml"))
    assert not any("version" in command for command in commands(tmp_path))


def test_a_command_of_another_version_is_refused() -> None:
    assert CliRunner().invoke(main, ["--require-version", VERSION, "methods", "kd"]).exit_code == 0
    refused = CliRunner().invoke(main, ["--require-version", "0.0.7", "methods", "kd"])
    assert refused.exit_code == 1
    for part in ("another version of Decant", "expected: 0.0.7", f"got: {VERSION}", "install decant-kd==0.0.7"):
        assert part in refused.stderr


def run(*words: str, cwd: Path, paths: Sequence[Path] = (), **variables: str) -> tuple[int, str]:
    """The exit status and the output of Python, with some folders to import from and not the source tree."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the wheel of this tree; every file of the package is in it."""
    tree, site = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("site")
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    pip = ("-m", "pip", "--disable-pip-version-check")
    status, output = run(
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        "wheel",
        ".",
        cwd=tree,
        SETUPTOOLS_SCM_PRETEND_VERSION=VERSION,
    )
    assert status == 0, output
    (wheel,) = (tree / "wheel").glob("*.whl")
    files = [path for room in ("pipeline", "stages") for path in (ROOT / room).rglob("*") if path.is_file()]
    expected = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert {"pipeline/reporting/report.html.j2", "stages/train_student.py"} <= expected
    assert expected == {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    status, output = run(*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel), cwd=tree)
    assert status == 0, output
    return site


@pytest.mark.long
def test_an_installed_decant_depends_on_its_version(site: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a finished cache and nothing of Decant's: DVC names all stages once the version is another."""

    def pipeline(*arguments: str) -> tuple[int, str]:
        return run("-m", "pipeline.cli", *arguments, cwd=here, paths=[site])

    def status() -> set[str]:
        with warnings.catch_warnings(), Repo() as repo:
            warnings.simplefilter("ignore")
            return set(repo.status(targets=list(MAKING)))

    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(here / "site"))
    code = "import pipeline, stages; print(pipeline.__file__, stages.__file__)"
    assert run("-c", code, cwd=here, paths=[site])[1].count(str(site)) == 2
    assert pipeline("--version")[1].split()[-1] == VERSION
    assert pipeline("dvc-file", "--config", "tiny.yaml", "--output", "dvc.yaml")[0] == 0
    stages = parse_yaml((here / "dvc.yaml").read_text(), "dvc.yaml")["stages"]
    assert not [each for stage in stages.values() for each in stage["deps"] if each.endswith(".py")]
    first = stages["prepare-data"]["cmd"]
    assert first.startswith(f"pipeline --require-version {VERSION} prepare-data ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Repo.init(no_scm=True).close()
        with Repo() as repo:
            for stage in MAKING:
                repo.commit(stage, force=True)
    assert status() == set()
    (metadata,) = site.glob("decant_kd-*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace(f"\nVersion: {VERSION}\n", "\nVersion: 9.9\n"))
    assert status() == set()  # until the file is written again; meanwhile its commands are refused
    status_code, output = pipeline(*first.split()[1:])
    assert status_code == 1
    assert "another version of Decant is installed" in output
    assert pipeline("dvc-file", "--config", "tiny.yaml", "--output", "dvc.yaml")[0] == 0
    assert status() == set(MAKING)


@pytest.mark.long
def test_the_version_is_that_of_the_tag_and_a_wheel_of_the_sdist_runs_the_demo(tmp_path: Path) -> None:
    tree, site, work = (tmp_path / name for name in ("tree", "site", "work"))
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"], ["tag", "v9.8.7"]):
        subprocess.run([*git, *words], cwd=tree, check=True, capture_output=True)
    status, output = run("-c", "from setuptools import build_meta as b; print(b.build_sdist('out'))", cwd=tree)
    assert status == 0, output
    assert output.splitlines()[-1] == "decant_kd-9.8.7.tar.gz"
    work.mkdir()
    pip = ("-m", "pip", "--disable-pip-version-check")
    sdist = str(tree / "out/decant_kd-9.8.7.tar.gz")
    status, output = run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheel", sdist, cwd=work)
    assert status == 0, output
    wheel = str(work / "wheel/decant_kd-9.8.7-py3-none-any.whl")
    status, output = run(*pip, "install", "--no-deps", "--no-index", "--target", str(site), wheel, cwd=work)
    assert status == 0, output

    def pipeline(*arguments: str) -> str:
        status, output = run("-m", "pipeline.cli", *arguments, cwd=work, paths=[site])
        assert status == 0, output
        return output

    assert pipeline("--version").split()[-1] == "9.8.7"
    assert "9.8.7" in pipeline("doctor")
    few = ("teacher_training.epochs=1", "train.epochs=1", "data.limit=80", "data.holdout.count=20")
    shown = pipeline("demo", *(word for each in few for word in ("--set", each)))
    assert "open in a browser: decant-demo/artifacts/digits/report/report.html" in shown
    assert (work / "decant-demo/artifacts/digits/report/report.html").exists()
    assert "no configuration is named" in run("-m", "pipeline.cli", "check", cwd=work, paths=[site])[1]
