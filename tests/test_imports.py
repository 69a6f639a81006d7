"""The import law: a room imports only rooms above it in the list of docs/architecture.md."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from trees import _trees_are_let_go, parsed  # noqa: F401 - the fixture is of all tests here

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text()
ROOMS, STORE = (
    [line.split()[0] for line in block.splitlines()] for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[:2]
)


def files() -> list[Path]:
    """Every file of the package and the stages."""
    return sorted([*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/**/*.py")])


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST, late: bool = False) -> Iterator[tuple[str, bool]]:
    """Every module that is imported, and whether a function does it, or only a checker of types."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", late) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, late) for alias in node.names)
        elif not isinstance(node, ast.expr):  # in which there are none, but most nodes
            yield from imports(node, late or _late(node))


def _late(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) or (isinstance(node, ast.If) and _is(node.test, "TYPE_CHECKING"))


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def place(module: str) -> tuple[int, int] | None:
    """Where a module stands in the list: its room, and inside the store that of the store."""
    parts = module.split(".")
    if parts[0] not in ("pipeline", "stages") or module == "pipeline":
        return None
    name = "stages" if parts[0] == "stages" else parts[1]
    within = STORE.index(parts[2]) if name == "store" and len(parts) > 2 else -1
    return ROOMS.index(name), within


def against_the_law(module: str, imported: str, late: bool) -> bool:
    own, other = place(module), place(imported)
    if own is None or other is None or own == other:
        return False
    backend = late and module == "pipeline.store.backend" and imported.startswith("pipeline.store.")
    return other > own and not backend


def test_a_room_imports_only_rooms_above_it() -> None:
    wrong = [
        f"{module} imports {imported}"
        for path in files()
        for module in [module_of(path)]
        for imported, late in imports(parsed(path.read_text()))
        if against_the_law(module, imported, late)
    ]
    assert wrong == []


def test_the_law_can_be_broken() -> None:
    assert against_the_law("pipeline.views.views", "pipeline.models.build", False)
    assert against_the_law("pipeline.store.format.layout", "pipeline.store.reader", True)
    assert against_the_law("pipeline.store.reader", "stages.report.run", False)
    assert against_the_law("pipeline.store.location", "pipeline.store.remote.object_storage", True)
    assert not against_the_law("pipeline.store.backend", "pipeline.store.remote.backend", True)
    assert against_the_law("pipeline.store.backend", "pipeline.store.remote.backend", False)


BACKENDS = ("pipeline.store.local", "pipeline.store.remote")


def knows_backends(module: str, tree: ast.AST) -> list[str]:
    """What a module says about kinds of places, which only `pipeline.store.backend` may know.

    Inside the store `RemotePath` may be named, in types of what is about addresses, but not asked for.
    """
    found = [f"isinstance(..., {kind})" for kind in _asked_kinds(tree) if module != "pipeline.store.location"]
    for imported, _ in imports(tree):
        if imported.endswith(".RemotePath") and not module.startswith("pipeline.store."):
            found.append(imported)
        found += [imported for each in BACKENDS if imported.startswith(each) and not module.startswith(each)]
    return [] if module == "pipeline.store.backend" else found


def _asked_kinds(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is(node.func, "isinstance"):
            yield from (name for name in ["RemotePath"] if name in ast.unparse(node.args[1]))


def test_only_one_file_knows_which_backends_there_are() -> None:
    found = {
        module: knows_backends(module, parsed(path.read_text())) for path in files() for module in [module_of(path)]
    }
    assert {module: what for module, what in found.items() if what} == {}


def test_a_file_that_knows_backends_is_found() -> None:
    by_kind = parsed("def f(path):\n    return isinstance(path, RemotePath | str)")
    assert knows_backends("pipeline.store.reader", by_kind) == ["isinstance(..., RemotePath)"]
    assert knows_backends("pipeline.store.backend", by_kind) == []
    typed = parsed("from pipeline.store.location import RemotePath, StorePath")
    assert knows_backends("pipeline.planning.plan", typed) == ["pipeline.store.location.RemotePath"]
    assert knows_backends("pipeline.store.remote.lease", typed) == []
    one = parsed("def f():\n    from pipeline.store.remote.cost import remote_cost")
    assert knows_backends("pipeline.planning.plan", one) == ["pipeline.store.remote.cost.remote_cost"]
    assert knows_backends("pipeline.store.remote.backend", one) == []


def test_every_room_of_the_list_exists() -> None:
    for room in (*(f"pipeline/{name}" for name in ROOMS if name != "stages"), *(f"pipeline/store/{n}" for n in STORE)):
        assert (ROOT / room).is_dir() or (ROOT / f"{room}.py").is_file(), room


def test_files_stay_small() -> None:
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files()}
    assert {name: count for name, count in lines.items() if count > (120 if name.startswith("stages/") else 300)} == {}


def test_what_needs_no_torch_does_not_wait_for_it():
    """The commands that answer in a second, in one process: help, then what reads configurations, caches, results."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from click.testing import CliRunner\n"
        "from pipeline.cli import main\n"
        "for args in [['--help'], *([name, '--help'] for name in main.commands)]:\n"
        "    assert CliRunner().invoke(main, args).exit_code == 0, args\n"
        "from click.shell_completion import ShellComplete\n"
        "words = ShellComplete(main, {}, 'pipeline', '_PIPELINE_COMPLETE')\n"
        "assert len(words.get_completions(['train-student', '--student'], '')) == 2, 'of configs/digits.yaml'\n"
        "assert len(words.get_completions(['methods'], '')) > 40\n"
        "heavy = {'torch', 'timm', 'zarr', 'h5py', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from pipeline.commands.first_look import problems_of_names\n"
        "from pipeline.experiment.source import ConfigFile\n"
        "config = Path('configs/digits.yaml')\n"
        "assert problems_of_names(ConfigFile(config)) == []\n"
        "wrong = problems_of_names(ConfigFile(config, ['train.epoch=1', 'views.operations=[pad-crap]']))\n"
        "assert [each.key for each in wrong] == ['views.operations.0', 'train.epoch']\n"
        "from pipeline import plugins\n"
        "for name in plugins.names('pipeline.store.encodings'):\n"
        "    plugins.load('pipeline.store.encodings', name, '')  # as manifests of caches name them\n"
        "import numpy\n"
        "half = plugins.load('pipeline.store.encodings', 'float16', '').build((3,), None)\n"
        "assert list(half.impossible_rows('', numpy.float16([[1, 2, 3], [4, 5, float('inf')]]))) == [False, True]\n"
        "for args in ['methods'], ['methods', 'crcd'], ['methods', '--json']:\n"
        "    assert CliRunner().invoke(main, args).exit_code == 0, args\n"
        "elsewhere = ['--set', 'runs.path=none', '--set', 'store.path=none.zarr']\n"
        "for args in ['inspect', *elsewhere], ['report', *elsewhere], ['evaluate', '--config', 'none.yaml'], [\n"
        "    'verify', 'none.zarr'\n"
        "]:\n"
        "    assert CliRunner().invoke(main, args).exit_code == 2, args\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_packing_a_folder_of_images_never_imports_torch(tmp_path: Path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        for size in (4, 5):  # sizes differ: files are stored, and decoded to know that they can be
            Image.new("RGB", (size, 4), "red").save(tmp_path / "photos" / "train" / name / f"{size}.jpg")
    source = "{name: image-folder, path: " + str(tmp_path / "photos") + "}"
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from pipeline.cli import main\n"
        "args = ['prepare-data', '--config', 'configs/digits.yaml', '--set', 'data.source=' + sys.argv[1]]\n"
        "for round in 'packs it', 'finds it there':\n"
        "    result = CliRunner().invoke(main, [*args, '--set', 'data.path=' + sys.argv[2]])\n"
        "    assert result.exit_code == 0, result.output\n"
        "assert 'already there' in result.output\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, source, str(tmp_path / "x.h5")], check=True, cwd=ROOT)
