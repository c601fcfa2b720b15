"""The package: what importing it costs, its public names, and that its metadata agree with each other."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import theodolite

ROOT = Path(__file__).parents[1]
PUBLIC = {
    "Grid",
    "Spins",
    "Box",
    "Latent",
    "Field",
    "Network",
    "OneHot",
    "Scale",
    "Density",
    "Landscape",
    "Ensemble",
    "Lipschitz",
    "Stability",
    "Units",
}
PUBLIC |= {"Boundary", "Constraints", "EnergyModel", "Learning", "UserError", "__version__"}
PUBLIC |= {"load_energy", "open_survey", "report"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_theodolite_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'xarray', 'numpy', 'scipy', 'numba', 'plotly', 'sklearn'}"
    assert run_python(f"import sys, theodolite; print({heavy} & set(sys.modules) or '')") == ""


def test_every_public_name_is_found_and_listed() -> None:
    assert set(theodolite.__all__) == PUBLIC
    assert set(dir(theodolite)) >= PUBLIC
    for name in PUBLIC:
        assert getattr(theodolite, name) is not None
    assert run_python("from theodolite import *; print(Grid(shape=(2,), levels=3).n_coordinates)") == "2"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Sextant'"):
        _ = theodolite.Sextant


@pytest.mark.parametrize(
    "before",
    [
        "",
        "import theodolite.report",
        "import theodolite.report.page",
        "from theodolite import report",
        "from theodolite.report.page import write_report",
    ],
)
def test_report_can_be_called_whichever_import_came_first(before: str) -> None:
    code = f"""
{before}
import theodolite as th
import theodolite.report.page as page
calls = []
page.write_report = lambda *arguments, **options: calls.append((arguments, options))
th.report("run", "report.html")
from theodolite import report
report("run", path="other.html")
assert th.report.page is page
print(calls)
"""
    assert run_python(code) == "[(('run', 'report.html'), {}), (('run',), {'path': 'other.html'})]"


def test_versions_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf8")
    assert PROJECT["version"] == theodolite.__version__
    assert f"version: {theodolite.__version__}\n" in citation
    assert f"## [{theodolite.__version__}]" in changes


def test_the_lock_file_pins_exactly_and_names_no_place() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in pins)
    assert "torch==2.13.0" in pins


def test_the_lock_file_pins_all_that_the_demo_and_the_tests_need() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf8")
    pinned = {re.sub("[-_.]+", "-", name).lower() for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
    extras = PROJECT["optional-dependencies"]
    needed = [*PROJECT["dependencies"], *extras["demo"], *extras["netcdf"], *extras["dev"]]
    assert {re.split(r"[\[>=<]", name)[0].lower() for name in needed} <= pinned


def test_every_import_is_of_a_declared_dependency() -> None:
    extras = PROJECT["optional-dependencies"]
    declared = [
        *PROJECT["dependencies"],
        *extras["demo"],
        *extras["onnx"],
        *extras["distributed"],
        *extras["netcdf"],
        *extras["pictures"],
    ]
    names = {re.split(r"[\[>=<]", name)[0].lower().replace("-", "_") for name in declared}
    # Imported under another name, or a part of what jinja2 is.
    other_names = {"sklearn": "scikit_learn", "markupsafe": "jinja2", "pywt": "pywavelets"}
    other_names["PIL"] = "pillow"
    names |= {"theodolite", *(name for name, package in other_names.items() if package in names)}
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                found = [str(node.module)]
            undeclared = {name.split(".")[0] for name in found} - names - sys.stdlib_module_names
            assert not undeclared, f"{file.name} imports {', '.join(undeclared)}"


def test_the_package_says_that_it_is_typed_and_under_what_licence() -> None:
    assert (ROOT / "src" / "theodolite" / "py.typed").exists()
    assert PROJECT["license"] == "MIT"
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf8")
