"""Trainers that nnU-Net finds through the bridge folder, and look-ups that end without one."""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find

from nnunet_nacl.registration import bridge_folder, lookup
from tests.environments import Environment

TRAINER_MODULE = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
class {name}(nnUNetTrainer):
    pass
"""


@pytest.fixture(autouse=True)
def bridge_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", bridge_folder())


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes an installed package: a module and the metadata that register its trainers."""

    def make(package: str, entry_points: str, module: str = "", first: bool = False) -> Path:
        folder = tmp_path / package
        information = folder / f"{package}-1.2.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n"
        )
        (information / "entry_points.txt").write_text(entry_points)
        (folder / f"{package}.py").write_text(module)
        path = [str(folder), *sys.path] if first else [*sys.path, str(folder)]
        monkeypatch.setattr(sys, "path", path)
        return folder

    return make


def other_trainer(name: str, package: str = "other_package") -> str:
    return f"[nnunetv2.trainers]\n{name} = {package}:{name}\n"


def test_nobody_takes_our_names_and_entry_points_come_before_the_grammar(
    distribution: Callable,
) -> None:
    from nnunet_nacl_trainers import nnUNetTrainerNACL

    theirs = "nnUNetTrainerNACL_theirs"  # would be a bad token of our grammar
    for package, name in (("other_one", "nnUNetTrainerNACL"), ("other_two", theirs)):
        distribution(
            package, other_trainer(name, package), TRAINER_MODULE.format(name=name), first=True
        )
    assert find("nnUNetTrainerNACL") is nnUNetTrainerNACL
    found = find(theirs)
    assert found.__module__ == "other_two" and found is find(theirs) is pickle.loads(
        pickle.dumps(found)
    )


@pytest.mark.parametrize("name", ["nnUNetTrainerDiceACE", "nnUNetTrainerACE_lambda0p5"])
def test_two_look_ups_give_one_class(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net takes what it imported from the folder out of sys.modules; the trainers must not be
    among it."""
    for module in [module for module in sys.modules if module.startswith("nnunet_nacl_trainers")]:
        monkeypatch.delitem(sys.modules, module)  # as in a process that looks for the first time
    first = find(name)
    assert "nnunet_nacl_bridge" not in sys.modules and sys.modules["nnunet_nacl_trainers"]
    assert find(name) is first is pickle.loads(pickle.dumps(first))


@pytest.mark.parametrize(
    ("package", "module"),
    [
        ("without_dependency", "import a_missing_package"),
        ("attribute_error", "import sys; del sys.nothing"),
    ],
)
def test_a_broken_package_breaks_only_its_own_trainer(
    distribution: Callable, package: str, module: str
) -> None:
    distribution(package, other_trainer("nnUNetTrainerBroken", package), module, first=True)
    assert find("nnUNetTrainerNACL").__name__ == "nnUNetTrainerNACL"
    with pytest.raises(ImportError, match=rf"nnUNetTrainerBroken.*registered by {package} 1\.2"):
        find("nnUNetTrainerBroken")
    with pytest.raises(
        RuntimeError, match="Could not find requested nnunet trainer nnUNetTrainerUnknown"
    ):
        find("nnUNetTrainerUnknown")


@pytest.mark.parametrize("entry_points", ["no section\n", "\0=\n"])
def test_unreadable_metadata_break_nothing(distribution: Callable, entry_points: str) -> None:
    distribution("unreadable", entry_points, first=True)
    assert find("nnUNetTrainerNACL").__name__ == "nnUNetTrainerNACL"


def test_the_search_goes_on_behind_our_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "nnUNetTrainerNACLx"
    (tmp_path / "behind.py").write_text(TRAINER_MODULE.format(name=name))
    monkeypatch.setenv("nnUNet_extTrainer", f"{bridge_folder()}:{tmp_path}")
    assert find(name).__module__ == "behind"


def test_a_python_without_the_package_is_not_harmed(
    new_environment: Callable[[], Environment],
) -> None:
    # It inherits the variable, so its nnU-Net imports our module, too. This is how nnU-Net asks it.
    code = (
        f"import importlib, pkgutil, sys\nsys.path.insert(0, {bridge_folder()!r})\nnames = [name"
        f" for _, name, is_package in pkgutil.iter_modules([{bridge_folder()!r}])]\nmodules ="
        " [importlib.import_module(name) for name in names]\nprint(names, [hasattr(modules[0],"
        " name) for name in ('nnUNetTrainerNACL', 'Other', '__path__')])"
    )
    printed = new_environment().run(code, "-I").strip()
    assert printed == "['nnunet_nacl_bridge'] [False, False, False]"


KNOWN = [
    "nnUNetTrainerNACL",
    "nnUNetTrainerDiceNACL",
    "nnUNetTrainerCE",
    "nnUNetTrainerFocal",
    "nnUNetTrainerTheirs",
]


@pytest.fixture
def bridge() -> ModuleType:
    path = Path(bridge_folder()) / "nnunet_nacl_bridge.py"
    spec = importlib.util.spec_from_file_location("bridge_under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("nnUNetTrainerNALC", "nnUNetTrainerNACL"),
        ("nnUNetTrainerDICENACL", "nnUNetTrainerDiceNACL"),
        ("nnUNetTrainerfocal_gamma2", "nnUNetTrainerFocal_gamma2"),
        ("nnUNetTrainerTheir_20epochs", "nnUNetTrainerTheirs"),
        ("nnUNetTrainerDiceTopK10Loss", None),
        ("nnUNetTrainerNACLDice", "nnUNetTrainerDiceNACL"),
        ("nnUNetTrainerNACLDice_lambda0.2", "nnUNetTrainerDiceNACL_lambda0p2"),
        ("nnUNetTrainerNALC_lr3", "nnUNetTrainerNACL"),
        ("nnUNetTrainerDice", "nnUNetTrainer"),
        ("nnUNetTrainerDice_100epochs", "nnUNetTrainerDiceCE_100epochs"),
        ("nnUNetTrainerDice_lr3", "nnUNetTrainer"),
        ("nnUNetTrainerCrossEntropy", "nnUNetTrainerCE"),
    ],
)
def test_a_near_miss_is_recognised(name: str, meant: str | None) -> None:
    assert lookup.suggest(name, KNOWN) == meant


def test_a_near_miss_is_the_last_that_is_said_and_other_names_are_passed_over(
    bridge: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "no trainer nnUNetTrainerNALC in .*; did you mean nnUNetTrainerNACL\\?$"
    with pytest.raises(ValueError, match=message):
        hasattr(bridge, "nnUNetTrainerNALC")
    assert not hasattr(bridge, "SomethingElse")
    # a class of the user's, in a folder that nnU-Net searches next
    (tmp_path / "mine.py").write_text("class nnUNetTrainerNALC: pass\n")
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([bridge_folder(), str(tmp_path)]))
    assert not hasattr(bridge, "nnUNetTrainerNALC")


def test_a_bad_token_passes_through_hasattr(bridge: ModuleType) -> None:
    with pytest.raises(ValueError, match="its size must be odd"):
        hasattr(bridge, "nnUNetTrainerNACL_k4")


def test_a_variant_that_cannot_be_made_is_no_unknown_name(
    bridge: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nnunet_nacl_trainers", None)
    with pytest.raises(ImportError, match="nnUNetTrainerNACL_k51.*cannot make it"):
        hasattr(bridge, "nnUNetTrainerNACL_k51")
