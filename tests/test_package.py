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
    (for_type_checkers,) = [node for node in package.body if isinstance(node, ast.If)]
    typed = set()
    for imported in for_type_checkers.body:
        typed.update(alias.asname for alias in imported.names)
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


def imports_below(*folders: Path) -> set[str]:
    """What the modules of folders import by its full name."""
    names: set[str] = set()
    for folder in folders:
        for path in folder.rglob("*.py"):
            names |= imports_in(path)
    return names


def foreign_imports_below(*folders: Path) -> set[str]:
    """Top-level names of what the folders' code imports and neither Python nor this project has."""
    names = {name.partition(".")[0] for name in imports_below(*folders)}
    ours = {"nnunet_nacl", "nnunet_nacl_trainers", "nnunet_nacl_bridge", "tests", "tools"}
    return names - set(sys.stdlib_module_names) - ours


LAYERS = (
    ("utilities",),
    ("label_space", "methods", "settings"),
    ("losses", "metrics"),
    ("estimators",),
    ("cases",),
    ("registration", "dicom"),
    ("nnunet",),
    ("calibration",),
    ("comparison", "worklist"),
    ("demo",),
    ("cli",),
)
"""The packages and what lies beside them: each imports from its own layer and from those before
it."""


def test_packages_import_one_way(sources: Path) -> None:
    layer_of = {}
    for layer, names in enumerate(LAYERS):
        layer_of.update(dict.fromkeys(names, layer))
    imported_by: dict[str, set[str]] = {}
    package_folder = sources / "nnunet_nacl"
    for path in package_folder.rglob("*.py"):
        package = path.relative_to(package_folder).with_suffix("").parts[0]
        if package not in ("__init__", "__main__"):
            ours = {name for name in imports_in(path) if name.startswith("nnunet_nacl.")}
            packages = {name.split(".")[1] for name in ours}
            imported_by.setdefault(package, set()).update(packages & layer_of.keys())
    assert imported_by.keys() == layer_of.keys()  # a new package needs its layer
    upwards = []
    for package, others in imported_by.items():
        upwards += [(package, other) for other in others if layer_of[other] > layer_of[package]]
        others.discard(package)
    assert not upwards
    TopologicalSorter(imported_by).prepare()


def test_losses_and_what_measures_calibration_do_not_import_each_other(sources: Path) -> None:
    package_folder = sources / "nnunet_nacl"
    by_losses = imports_below(package_folder / "losses")
    assert not [name for name in by_losses if name.startswith("nnunet_nacl.metrics")]
    measuring = [package_folder / name for name in ("metrics", "estimators")]
    by_measuring = imports_below(*measuring)
    assert not [name for name in by_measuring if name.startswith("nnunet_nacl.losses")]


def test_training_knows_nothing_of_what_measures_cases(sources: Path) -> None:
    """But for the one module that nnU-Net's validation asks for, when it begins, and for the names
    of layers."""
    folders = [
        sources / "nnunet_nacl" / package for package in ("losses", "metrics", "registration")
    ]
    names = imports_below(*folders, sources / "trainers")
    ours = {name for name in names if name.startswith("nnunet_nacl.")}
    exception = {
        "nnunet_nacl.comparison",
        "nnunet_nacl.comparison.training_validation",
        "nnunet_nacl.nnunet.class_layers",  # which imports nothing of ours
        "nnunet_nacl.nnunet.class_layers.class_layers",
    }
    packages = {name.split(".")[1] for name in ours - exception}
    assert exception <= ours
    assert packages == {"label_space", "losses", "methods", "metrics", "registration", "utilities"}


def test_what_computes_imports_neither_plotting_nor_nnunet(sources: Path) -> None:
    computing = ("losses", "metrics", "estimators")
    names = foreign_imports_below(*(sources / "nnunet_nacl" / package for package in computing))
    assert "numpy" in names
    assert not names & {"matplotlib", "nnunetv2"}


def required(sources: Path, *extras: str) -> set[str]:
    """Normalised names of the distributions that setup.py requires."""
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(sources / "setup.py"))
    arguments = setup.call_args.kwargs
    lines = list(arguments["install_requires"])
    for extra in extras:
        lines += arguments["extras_require"][extra]
    return {normalise(re.match(r"[\w.-]+", line)[0]) for line in lines}


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("folders", "extras"),
    [(("nnunet_nacl", "trainers"), ("demo", "dicom")), (("tests",), ("demo", "test"))],
)
def test_what_is_imported_is_required(
    sources: Path, folders: tuple[str, ...], extras: tuple[str, ...]
) -> None:
    distributions = metadata.packages_distributions()
    declared = required(sources, *extras)
    undeclared = []
    for name in foreign_imports_below(*(sources / folder for folder in folders)):
        # several distributions can have modules of one name
        of_name = {normalise(distribution) for distribution in distributions.get(name, [name])}
        if not of_name & declared:
            undeclared.append(name)
    assert not undeclared


def test_the_long_description_has_no_relative_links(sources: Path) -> None:
    text = (
        metadata.metadata("nnunet_nacl").get_payload()
        or metadata.metadata("nnunet_nacl")["Description"]
    )
    assert "(`docs/losses.md`)" in text
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets and all(target.startswith(("https://", "http://", "#")) for target in targets)
