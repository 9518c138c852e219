"""The package itself: what it exports, and that importing it costs nothing."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path
from unittest import mock

import pytest

import nnunet_nacl


def test_every_public_name_is_there_and_type_checkers_know_it(sources: Path) -> None:
    names = set(nnunet_nacl.__all__)
    assert names <= set(dir(nnunet_nacl))
    assert [name for name in names if getattr(nnunet_nacl, name) is None] == []
    package = ast.parse((sources / "nnunet_nacl" / "__init__.py").read_text(encoding="utf-8"))
    (for_type_checkers,) = (node for node in package.body if isinstance(node, ast.If))
    typed = {alias.asname for imported in for_type_checkers.body for alias in imported.names}
    assert typed == names - {"__version__"}


@pytest.fixture
def sources() -> Path:
    """The source tree; skips where the tests run on an installed package alone."""
    folder = Path(nnunet_nacl.__file__).parents[1]
    if not (folder / "setup.py").is_file():
        pytest.skip("not run from the source tree")
    return folder


def test_version_and_date_are_the_same_everywhere(sources: Path) -> None:
    citation = (sources / "CITATION.cff").read_text(encoding="utf-8")
    released = re.findall(r"^(?:version|date-released): (.*)$", citation, re.MULTILINE)
    changes = (sources / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d[^]]*)\] - (\d{4}-\d\d-\d\d)$", changes, re.MULTILINE)
    assert list(newest.groups()) == released and released[0] == nnunet_nacl.__version__


def imports_in(path: Path) -> set[str]:
    """What a module imports by its full name, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imported(*folders: Path) -> set[str]:
    """Top-level names of what the folders' code imports and neither Python nor this project has."""
    names = {
        name.partition(".")[0]
        for folder in folders
        for path in folder.rglob("*.py")
        for name in imports_in(path)
    }
    ours = {"nnunet_nacl", "nnunet_nacl_trainers", "nnunet_nacl_bridge", "tests", "tools"}
    return names - set(sys.stdlib_module_names) - ours


LAYERS = (
    ("errors", "files", "images", "json_files", "json_types", "label_space", "methods"),
    ("losses", "metrics"),
    ("calibration", "quality"),
    ("cases",),
    ("registration", "training", "dicom"),
    ("nnunet",),
    ("calibrator",),
    ("reports",),
    ("evaluation", "worklist"),
    ("commands",),
    ("demo",),
    ("cli",),
)
"""The packages and what lies beside them: each imports from its own layer and from those before
it."""


def test_packages_import_one_way(sources: Path) -> None:
    number = {name: i for i, names in enumerate(LAYERS) for name in names}
    found: dict[str, set[str]] = {}
    package_folder = sources / "nnunet_nacl"
    for path in package_folder.rglob("*.py"):
        package = path.relative_to(package_folder).with_suffix("").parts[0]
        if package not in ("__init__", "__main__"):
            ours = {
                name.split(".")[1] for name in imports_in(path) if name.startswith("nnunet_nacl.")
            }
            found.setdefault(package, set()).update(ours & number.keys())
    assert found.keys() == number.keys()  # a new package needs its layer
    assert not {(a, b) for a, others in found.items() for b in others if number[b] > number[a]}
    TopologicalSorter({name: others - {name} for name, others in found.items()}).prepare()


def test_losses_and_what_measures_calibration_do_not_import_each_other(sources: Path) -> None:
    def imported_by(package: str) -> set[str]:
        return {
            name
            for path in (sources / "nnunet_nacl" / package).rglob("*.py")
            for name in imports_in(path)
        }

    assert not any(name.startswith("nnunet_nacl.metrics") for name in imported_by("losses"))
    for package in ("metrics", "calibration", "quality"):
        assert not any(name.startswith("nnunet_nacl.losses") for name in imported_by(package))


def test_training_knows_nothing_of_what_measures_cases(sources: Path) -> None:
    """But for the one module that nnU-Net's validation asks for, when it begins."""
    folders = [
        sources / "nnunet_nacl" / package for package in ("losses", "metrics", "registration")
    ]
    ours: set[str] = set()
    for folder in [*folders, sources / "trainers"]:
        for path in folder.rglob("*.py"):
            ours |= {name for name in imports_in(path) if name.startswith("nnunet_nacl.")}
    exception = {"nnunet_nacl.evaluation", "nnunet_nacl.evaluation.training_validation"}
    packages = {name.split(".")[1] for name in ours - exception}
    assert exception <= ours
    assert packages == {"json_types", "label_space", "losses", "methods", "metrics", "registration"}


def test_what_computes_imports_neither_plotting_nor_nnunet(sources: Path) -> None:
    found = imported(
        *(
            sources / "nnunet_nacl" / package
            for package in ("losses", "metrics", "calibration", "quality")
        )
    )
    assert "numpy" in found and not found & {"matplotlib", "nnunetv2"}


def required(sources: Path, *extras: str) -> set[str]:
    """Normalised names of the distributions that setup.py requires."""
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(sources / "setup.py"))
    asked = setup.call_args.kwargs
    lines = [
        *asked["install_requires"],
        *(line for extra in extras for line in asked["extras_require"][extra]),
    ]
    return {normalised(re.match(r"[\w.-]+", line)[0]) for line in lines}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("folders", "extras"),
    [(("nnunet_nacl", "trainers"), ("demo", "dicom")), (("tests",), ("demo", "test"))],
)
def test_what_is_imported_is_required(
    sources: Path, folders: tuple[str, ...], extras: tuple[str, ...]
) -> None:
    distributions = metadata.packages_distributions()
    undeclared = {
        name
        for name in imported(*(sources / folder for folder in folders))
        if not {normalised(one) for one in distributions.get(name, [name])}
        & required(sources, *extras)
    }
    assert not undeclared


def test_the_long_description_has_no_relative_links(sources: Path) -> None:
    text = (
        metadata.metadata("nnunet_nacl").get_payload()
        or metadata.metadata("nnunet_nacl")["Description"]
    )
    assert "(`docs/losses.md`)" in text
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets and all(target.startswith(("https://", "http://", "#")) for target in targets)
