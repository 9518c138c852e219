"""The entry points that this package lists, and how the bridge reads everyone's."""

from __future__ import annotations

import pytest

from nnunet_nacl.registration.lookup import RegisteredTrainer


@pytest.mark.parametrize("value", ["a_missing_package:Trainer", "os:missing", "no colon", "", "os.path:join.missing"])
def test_a_trainer_that_cannot_be_imported_is_an_import_error(value: str) -> None:
    with pytest.raises(ImportError, match=r"'Name' is registered by somebody 1\.0"):
        RegisteredTrainer("Name", value, "somebody 1.0").load()


@pytest.mark.parametrize(
    ("value", "ours"),
    [("nnunet_nacl_trainers.nacl:X", True), ("nnunet_nacl_trainers:X", True), ("nnunet_nacl_trainers_more:X", False)],
)
def test_ours_are_known_by_their_package(value: str, ours: bool) -> None:
    assert RegisteredTrainer("X", value, "").is_ours is ours
