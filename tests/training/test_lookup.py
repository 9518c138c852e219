"""Look-ups that end without a trainer."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nnunet_nacl.training import bridge_folder, lookup

KNOWN = ["nnUNetTrainerNACL", "nnUNetTrainerDiceNACL", "nnUNetTrainerCE", "nnUNetTrainerFocal", "nnUNetTrainerTheirs"]


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
    ],
)
def test_a_near_miss_is_recognised(name: str, meant: str | None) -> None:
    assert lookup.suggest(name, KNOWN) == meant


def test_a_near_miss_is_hinted_at_once_and_other_names_are_passed_over_silently(bridge: ModuleType, caplog) -> None:
    for name in ("nnUNetTrainerNALC", "nnUNetTrainerNALC", "SomethingElse"):  # asked for by no other test
        assert not hasattr(bridge, name)
    assert caplog.text.count("did you mean") == 1


def test_a_bad_token_passes_through_hasattr(bridge: ModuleType) -> None:
    with pytest.raises(ValueError, match="Tokens in this order"):
        hasattr(bridge, "nnUNetTrainerNACL_k4")


def test_a_variant_that_cannot_be_made_is_no_unknown_name(bridge: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nnunet_nacl_trainers", None)
    with pytest.raises(ImportError, match="nnUNetTrainerNACL_k51.*cannot make it"):
        hasattr(bridge, "nnUNetTrainerNACL_k51")
