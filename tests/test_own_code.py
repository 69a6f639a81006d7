"""Code of the user's own is found in the working directory and among installed packages, and its errors are theirs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from pipeline import own_code
from pipeline.experiment.run_folder import imported_code


def refusal(name: str) -> own_code.NotImportable:
    with pytest.raises(own_code.NotImportable) as error:
        own_code.imported(name)
    return error.value


def test_names_of_the_form_module_name() -> None:
    assert all(map(own_code.is_own, ("a:b", "a.b_c:D", "ä:b")))
    assert not any(map(own_code.is_own, ("a", "a.b", "a:", ":b", "a:b:c", "a b:c", "a:b.c", "hf-hub:x", "a/b:c", 3)))


def test_the_working_directory_is_searched_and_stays_on_the_path(own: Path) -> None:
    assert str(own) not in sys.path
    assert not own_code.is_imported("own_invert:Invert")
    assert own_code.imported("own_invert:Invert").__module__ == "own_invert"
    assert own_code.is_imported("own_invert:Invert")
    assert sys.path.count(str(own)) == 1
    assert own_code.imported("own_invert:Options")
    assert sys.path.count(str(own)) == 1


def test_what_is_installed_leaves_the_path_alone(own: Path) -> None:
    path = list(sys.path)
    assert own_code.imported("xml.dom.minidom:parse")
    assert sys.path == path
    assert "there is no module 'own_nothing'" in refusal("own_nothing:x").what
    assert sys.path == path


def test_what_cannot_be_imported_is_told_apart(own: Path) -> None:
    (own / "own_package").mkdir()
    (own / "own_package/__init__.py").touch()
    (own / "own_needs.py").write_text("import own_helper_of_mine\n")
    (own / "own_raises.py").write_text("x = 1\n\nraise ValueError('no data here')\n")
    (own / "own_exits.py").write_text("import sys\nsys.exit('usage: ...')\n")
    (own / "own_typo.py").write_text("def f(:\n")
    assert refusal("own_inverd:Invert").fix == "did you mean 'own_invert'?"
    assert refusal("own_pakage:f").fix == "did you mean 'own_package'?"
    assert "there is no module 'own_package.ops'" in refusal("own_package.ops:f").what
    assert refusal("own_invert:Invret").fix == "did you mean 'Invert'?"
    needs = refusal("own_needs:f").what
    assert "ModuleNotFoundError: No module named 'own_helper_of_mine' (own_needs.py, line 1)" in needs
    assert "ValueError: no data here (own_raises.py, line 3)" in refusal("own_raises:f").what
    assert "SystemExit: usage: ... (own_exits.py, line 2)" in refusal("own_exits:f").what
    assert "SyntaxError: invalid syntax (own_typo.py, line 1)" in refusal("own_typo:f").what


def test_the_files_of_code_are_those_that_it_imports(own: Path) -> None:
    package = own / "own_pack"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "ops.py").write_text("from . import levels\nfrom .sub.deep import x\nimport json, numpy\n")
    (package / "levels.py").write_text("import own_levels\n")
    (package / "sub").mkdir()
    (package / "sub/__init__.py").touch()
    (package / "sub/deep.py").write_text("from ..levels import own_levels\nx = 1\n")
    (package / "other.py").touch()
    assert own_code.files_of(["own_pack.ops:x"]) == ()  # nothing is imported to find out
    own_code.imported("own_pack.ops:x")
    own_code.imported("own_pack.other:__name__")
    names = ("__init__", "levels", "ops", "sub/__init__", "sub/deep")
    expected = sorted([Path("own_levels.py"), *(Path(f"own_pack/{name}.py") for name in names)])
    assert own_code.files_of(["own_pack.ops:x"]) == tuple(expected)
    assert own_code.files_of(["json:dumps", "pytest:fixture"]) == ()


def test_what_made_a_run_is_told_by_a_digest_with_the_code_of_the_users_own(own: Path) -> None:
    digests = [imported_code(), imported_code()]
    own_code.imported("own_invert:Invert")
    digests += [imported_code(), imported_code()]
    (own / "own_levels.py").write_text("HIGHEST = 255  # levels\n")
    digests += [imported_code()]
    first, second, other = digests[0], digests[2], digests[4]
    assert digests == [first, first, second, second, other]
    assert len({first, second, other}) == 3


def test_packages_in_the_working_directory_that_are_installed_are_not_the_users_own(own: Path) -> None:
    place = own / "venv/lib/site-packages"
    place.mkdir(parents=True)
    (place / "own_installed.py").write_text("x = 1\n")
    sys.path.append(str(place))
    own_code.imported("own_installed:x")
    assert "own_installed" not in own_code.imported_files()


def test_the_installed_command_finds_it(own: Path) -> None:
    """Whose search path begins with the folder of the script, and not with the working directory."""
    (own / "bin").mkdir()
    (own / "bin/script.py").write_text(
        "from pipeline import own_code\nprint(own_code.imported('own_levels:HIGHEST'))\n"
    )
    done = subprocess.run([sys.executable, "bin/script.py"], capture_output=True, text=True, check=True, env=_paths())
    assert done.stdout == "255\n"


def _paths() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(own_code.__file__).parents[1])}


def test_an_installed_package_that_brings_plugins_is_to_blame_for_its_errors(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own / "site-packages").mkdir()
    (own / "site-packages/own_brought.py").write_text("def fail():\n    return {}['x']\n")
    monkeypatch.syspath_prepend(own / "site-packages")
    import own_brought  # type: ignore[import-not-found]

    for group, place in (("decant.operations", "site-packages/own_brought.py, line 2"), ("other", None)):
        found = EntryPoints([EntryPoint("fail", "own_brought:fail", group)])
        monkeypatch.setattr(own_code, "entry_points", lambda found=found, **which: found.select(**which))
        with pytest.raises(KeyError) as error:
            own_brought.fail()
        error.value.__traceback__ = error.tb.tb_next  # this file is not the user's
        assert own_code.place_in_code_of_users(error.value) == place
    error.value.add_note("view 0 of samples own_brought:fail")  # which may be called anything
    assert own_code.place_in_code_of_users(error.value) is None
    error.value.add_note("operation own_brought:fail")  # as a configuration names it, without an entry point
    assert own_code.place_in_code_of_users(error.value) == "site-packages/own_brought.py, line 2"
