"""The entry points that this package lists, and how the bridge reads everyone's."""

from __future__ import annotations

import configparser
import zipfile
from pathlib import Path

import pytest

from nnunet_nacl.registration.lookup import RegisteredTrainer


def test_every_named_trainer_is_an_entry_point_that_loads(wheel: Path) -> None:
    pytest.importorskip("nnunetv2", reason="needs nnU-Net")
    from nnunet_nacl_trainers import NAMED_TRAINERS

    parser = configparser.ConfigParser(delimiters="=")
    parser.optionxform = str
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        parser.read_string(archive.read(name).decode("utf-8"))
    listed = parser["nnunetv2.trainers"]
    assert set(listed) == set(NAMED_TRAINERS)
    for name, value in listed.items():
        trainer = RegisteredTrainer(name, value, "nnunet_nacl")
        assert trainer.is_ours
        assert trainer.load().__name__ == name


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
