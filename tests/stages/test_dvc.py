"""dvc.yaml says what every stage depends on: neither a file too few nor one too many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imports
import pytest
from experiment import begin
from processes import output_of

from pipeline.commands import dvc_file
from pipeline.dvc_file.dependencies import CODE, COMMON, code_of
from pipeline.dvc_file.plugin_files import objective_files
from pipeline.dvc_file.stages import stages_of
from pipeline.errors import ConfigError
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.source import SECTIONS, ConfigFile
from pipeline.yaml_text import parse_yaml, to_yaml

ROOT = Path(__file__).resolve().parents[2]
PRINTED = (
    "pipeline/allocator.py",
    "pipeline/cli.py",
    "pipeline/commands",
    "pipeline/progress.py",
    "pipeline/version.py",
)
"""Decide what is printed, never what is written."""

COMMANDS = {
    "prepare-data": "prepare-data",
    "train-teacher": "train-teacher",
    "cache-teacher": "cache-teacher",
    **{name: f"train-student --student small --objectives {name}" for name in ("hard", "kd", "lfcc")},
    "evaluate": "evaluate",
    "report": "report",
}
SOURCES = "pipeline/data/sources"
"""Every stage asks the source for its options; `prepare-data` alone reads images with it."""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The files of ours that every command imports, by paths in the repository; each in a process of its own."""
    folder = begin(tmp_path_factory.mktemp("imports"))
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, command in COMMANDS.items():
            files = output_of(imports.of_command, [*command.split(), "--config", "tiny.yaml"], log=folder / "log")
            found[name] = json.loads(files.splitlines()[-1])
    return {name: {Path(file).relative_to(ROOT).as_posix() for file in files} for name, files in found.items()}


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The files of plug-ins that every command depends on: those that the configuration names."""
    path = begin(tmp_path_factory.mktemp("plugins")) / "tiny.yaml"
    found: dict[str, set[str]] = {name: set() for name in COMMANDS}
    for stage in stages_of(ConfigFile(path).read(ExperimentConfig)):
        found[stage.name.removeprefix("train-students-") if "student" in stage.name else stage.code] |= set(
            stage.plugins
        )
    return found


def covers(dependency: str, file: str) -> bool:
    if dependency.endswith("/*.py"):
        return Path(file).parent.as_posix() == dependency.removesuffix("/*.py")
    return file == dependency or file.startswith(f"{dependency}/")


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_a_stage_imports_what_it_depends_on_and_nothing_else(
    imported: dict[str, set[str]], plugins: dict[str, set[str]], name: str
):
    stage = COMMANDS[name].split()[0]
    dependencies = [*COMMON, *CODE[stage], *plugins[name]]
    assert len(set(dependencies)) == len(dependencies)
    assert "pipeline/dvc_file/dependencies.py" not in imported[name]
    ignored = PRINTED if stage == "prepare-data" else (*PRINTED, SOURCES)
    mine = {file for file in imported[name] if not any(covers(each, file) for each in ignored)}
    missing = sorted(file for file in mine if not any(covers(each, file) for each in dependencies))
    idle = sorted(each for each in (*COMMON, *CODE[stage]) if not any(covers(each, file) for file in mine))
    assert (missing, idle) == ([], [])
    # A filter that the cache was made with is not needed by a student without maps.
    assert all(file in imported[name] or "/filters/" in file for file in plugins[name])


def test_a_cache_depends_on_the_plugins_that_its_configuration_names(plugins: dict[str, set[str]]):
    drawn = {f"pipeline/views/operations/{name}.py" for name in ("pad_crop", "horizontal_flip")}
    assert drawn <= plugins["cache-teacher"] & plugins["train-teacher"] & plugins["kd"]
    assert drawn <= plugins["evaluate"]  # which renders some views of the cache for the report
    assert not any("gaussian" in file or "rotate" in file for files in plugins.values() for file in files)
    assert "pipeline/signals/filters/mean.py" in plugins["cache-teacher"]
    assert "pipeline/store/encodings/float32.py" in plugins["evaluate"]
    assert "pipeline/store/encodings/int8.py" not in plugins["cache-teacher"]
    assert {"pipeline/data/sources/hdf5.py"} <= plugins["prepare-data"] - plugins["train-teacher"]


def test_packed_pixels_depend_on_what_reduces_them(empty: Path):
    change(empty, data={"path": "data.h5", "source": {"name": "hdf5", "path": "raw.h5", "store": "raw"}})
    first = next(iter(stages_of(ConfigFile(Path("tiny.yaml")).read(ExperimentConfig))))
    loops = "pipeline/views/compiled_resample.py"
    assert {loops, "pipeline/views/resample.py", "pipeline/views/operations/resize.py"} <= set(first.plugins)


def test_caches_of_others_may_be_reduced_and_written_in_any_way(empty: Path):
    change(empty, caches=[{"path": "elsewhere/big.zarr"}, {"path": "other.zarr", "role": "mean-logits"}])
    stages = {each.name: each for each in stages_of(ConfigFile(Path("tiny.yaml")).read(ExperimentConfig))}
    any_way = {"pipeline/store/encodings/topk.py", "pipeline/signals/filters/dct.py"}
    assert any_way <= set(stages["train-students-kd"].plugins)
    assert not any_way & set(stages["cache-teacher"].plugins)


@pytest.mark.long
def test_the_teacher_needs_no_objective_but_its_own_and_the_cache_none_at_all(imported: dict[str, set[str]]):
    def plugins(name: str) -> set[str]:
        files = (Path(file) for file in imported[name] if file.startswith("pipeline/objectives/methods/"))
        return {file.stem for file in files if file.stem != "__init__"}

    assert plugins("train-teacher") == {"hard_label"}
    assert plugins("evaluate") == plugins("report") == plugins("prepare-data") == set()
    others = ("objectives", "reporting", "training")
    assert not [file for file in imported["cache-teacher"] if file.split("/")[1] in others]


def test_dependencies_exist():
    for stage, files in CODE.items():
        for file in (*COMMON, *files):
            assert list(ROOT.glob(file)), f"{stage}: {file}"
        assert [file for file in code_of(stage) if "*" in file or not (ROOT / file).exists()] == []


def test_the_sections_of_stages_are_those_of_an_experiment():
    assert set(ExperimentConfig.model_fields) == set(SECTIONS)
    assert len(ExperimentConfig.model_fields) == len(SECTIONS)


def without_comments(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


def test_the_committed_file_is_the_one_that_the_configuration_gives(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    config, committed = Path("configs/digits.yaml"), Path("dvc.yaml").read_text()
    experiment = ConfigFile(config).read(ExperimentConfig)
    given = to_yaml(dvc_file.stage_file(experiment, ConfigFile(config), Path()))
    command = "pipeline dvc-file --config configs/digits.yaml --output dvc.yaml"
    assert without_comments(committed) == without_comments(given), f"run `{command}`"
    assert command in committed.splitlines()[1]


def test_every_configuration_in_the_tree_has_a_dvc_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    for config in sorted(Path("configs").glob("*.yaml")):
        experiment = ConfigFile(config).read(ExperimentConfig)
        digits = config.stem == "digits"  # whose file is the committed one
        folder = Path() if digits else Path("experiments") / config.stem
        stages = dvc_file.stage_file(experiment, ConfigFile(config), folder)["stages"]
        assert {"prepare-data", "cache-teacher", "evaluate", "report"} <= set(stages)
        assert ("train-teacher" in stages) == (experiment.teacher_training is not None), config
        assert digits or all(stage["wdir"] == "../.." for stage in stages.values())


def written(folder: Path, *overrides: str, output: Path = Path("dvc.yaml")) -> dict[str, Any]:
    if not (folder / "tiny.yaml").exists():
        begin(folder)
    dvc_file.run(ConfigFile(Path("tiny.yaml"), overrides), output)
    value: dict[str, Any] = parse_yaml(output.read_text(), str(output))
    return value


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_stages_are_chained_by_what_they_write_and_read(empty: Path):
    stages = written(empty)["stages"]
    expected = ["prepare-data", "train-teacher", "cache-teacher", "cache-evaluation"]
    expected += [f"train-students-{name}" for name in ("hard", "kd", "lfcc")] + ["evaluate", "report"]
    assert list(stages) == expected
    assert stages["prepare-data"]["deps"] == ["raw.h5"]
    assert stages["train-teacher"]["outs"] == kept("artifacts/teacher")
    caches = [f"artifacts/caches/tiny{kind}.zarr" for kind in ("", ".holdout", ".evaluation")]
    assert stages["cache-teacher"]["outs"] == kept(*caches[:1])
    assert stages["cache-evaluation"]["outs"] == kept(*caches[1:])
    assert "evaluate" not in stages["cache-teacher"]["params"][0]["tiny.yaml"]  # it costs no main cache
    student = stages["train-students-kd"]
    stamps = [f"{cache}/.fingerprint" for cache in caches]  # not the caches: DVC would look at every file of them
    assert student["deps"] == ["data.h5", *stamps[:2]]
    assert student["cmd"].endswith("train-students --config tiny.yaml --objectives kd --replace")
    assert student["outs"] == kept(*(f"artifacts/tiny/students/{name}/kd/seed-0" for name in ("small", "vit")))
    (params,) = student["params"]
    assert params["tiny.yaml"] == [
        "data",
        "train",
        "views",
        "students",
        "objectives.kd",
    ]  # of what is written
    folders = [f"artifacts/tiny/students/{s}/{o}/seed-0" for s in ("small", "vit") for o in ("hard", "kd", "lfcc")]
    inputs = ["data.h5", "artifacts/teacher/teacher.safetensors", stamps[0], stamps[2]]
    assert stages["evaluate"]["deps"] == [*inputs, *folders]
    found = ["artifacts/tiny/evaluation.json", "artifacts/tiny/details.json"]
    assert stages["evaluate"]["outs"] == kept(*found)
    assert stages["report"]["deps"] == [*found, *folders]


def test_code_is_a_dependency_in_a_checkout_only(empty: Path):
    assert written(empty)["stages"]["cache-teacher"]["deps"][0] == "data.h5"
    (empty / "pipeline").mkdir()
    (empty / "pipeline/cli.py").touch()
    stages = written(empty)["stages"]
    assert set(code_of("cache-teacher")) <= set(stages["cache-teacher"]["deps"])
    assert "pipeline/objectives/methods/lfcc.py" in stages["train-students-lfcc"]["deps"]
    assert "pipeline/objectives/methods/lfcc.py" not in stages["train-students-kd"]["deps"]


def test_a_file_elsewhere_names_the_working_directory(empty: Path):
    (empty / "experiments/one").mkdir(parents=True)
    content = written(empty, output=Path("experiments/one/dvc.yaml"))
    assert {stage["wdir"] for stage in content["stages"].values()} == {"../.."}
    assert "../../artifacts/tiny/students/small/hard/seed-0/history.csv" in content["plots"][0]


def kept(*paths: str) -> list[dict[str, dict[str, bool]]]:
    """Outputs that DVC leaves where they are before a stage runs."""
    return [{path: {"persist": True}} for path in paths]


def change(folder: Path, **sections: Any) -> None:
    """Write other sections to the configuration: DVC runs what is written."""
    path = begin(folder) / "tiny.yaml"
    path.write_text(to_yaml({**parse_yaml(path.read_text(), "tiny.yaml"), **sections}))


def test_overrides_that_dvc_would_not_see_are_refused(empty: Path):
    with pytest.raises(ConfigError, match=r"a dvc\.yaml runs the configuration as it is written"):
        written(empty, "views.count=3")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"students": {"a b": {"model": "cifar_resnet8"}}}, "students"),
        ({"objectives": {"a/b": [{"name": "kd"}]}}, "objectives"),
        ({"runs": {"path": "x", "seeds": [-1]}}, "runs.seeds.0"),
        ({"runs": {"path": "x", "seeds": [1, 1]}}, "names every seed once"),
    ],
)
def test_names_and_seeds_that_are_no_parts_of_paths_are_refused(empty: Path, section: dict[str, Any], message: str):
    change(empty, **section)
    with pytest.raises(ConfigError, match=message):
        written(empty)


def test_students_of_another_cache_depend_on_that_cache(empty: Path):
    change(empty, caches=[{"path": "elsewhere/big.zarr"}])
    stages = written(empty)["stages"]
    stamps = [f"elsewhere/big{kind}.zarr/.fingerprint" for kind in ("", ".holdout", ".evaluation")]
    assert stages["train-students-kd"]["deps"] == ["data.h5", *stamps[:2]]
    assert stamps[2] in stages["evaluate"]["deps"]


def test_an_experiment_without_holdout_has_neither_its_cache_nor_its_curve(empty: Path):
    change(empty, data={"path": "data.h5"})
    content = written(empty)
    assert content["stages"]["cache-evaluation"]["outs"] == kept("artifacts/caches/tiny.evaluation.zarr")
    assert [plot["y"] for entry in content["plots"] for plot in entry.values()] == [["loss"]] * 6


def test_a_method_brings_the_files_that_it_is_made_of():
    found = objective_files(["sdd"])
    assert {f"pipeline/objectives/methods/{name}.py" for name in ("sdd", "dkd", "nkd")} <= found
    assert {f"pipeline/objectives/{name}.py" for name in ("local", "target")} <= found
    assert not found & set(COMMON)
    assert "pipeline/objectives/base.py" not in found


def test_a_method_brings_the_filter_and_the_extra_signal_that_it_computes():
    signals = {
        name: {Path(file).stem for file in objective_files([name]) if "signals/" in file} for name in ("kd", "at")
    }
    assert signals == {"kd": set(), "at": {"__init__", "attention_map", "mean", "_separable"}}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("experiments/one", r"--output experiments/one/dvc\.yaml"),
        ("experiments/one.yaml", r"--output experiments/dvc\.yaml"),
        ("tiny.yaml", r"--output dvc\.yaml"),
    ],
)
def test_a_file_that_dvc_would_not_read_is_refused(empty: Path, output: str, message: str):
    before = (begin(empty) / "tiny.yaml").read_bytes()
    with pytest.raises(ConfigError, match=rf"(?s)--output: .*named dvc\.yaml alone.*{message}"):
        written(empty, output=Path(output))
    assert (empty / "tiny.yaml").read_bytes() == before
    assert not (empty / "experiments").exists()


@pytest.mark.parametrize("content", [b"stages: {mine: {cmd: echo}}\n", b"", b"\xff\n#   pipeline dvc-file\n"])
def test_a_dvc_file_of_somebody_else_is_not_replaced(empty: Path, content: bytes):
    begin(empty)
    Path("dvc.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"--output: .*not written by `pipeline dvc-file`, so it is not replaced"):
        dvc_file.run(ConfigFile(Path("tiny.yaml")), Path("dvc.yaml"))
    assert Path("dvc.yaml").read_bytes() == content
