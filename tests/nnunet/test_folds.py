"""Folders beside the folds that are none, and folds that the user names wrongly: the same rule in
every command."""

from __future__ import annotations

import json
import shutil

import pytest

from nnunet_nacl.cli.main import main
from nnunet_nacl.comparison.located import common_folds, measurable_folds
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.settings import FINAL, ComparisonSettings
from tests.metrics.models import give_map, make_trained

ODD = ("fold_0_backup", "fold_00", "fold_0_1", "fold_²", "fold_-1", "fold_", "fold_al")
MODEL = ("-d", "999", "-c", "3d_fullres")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Two folds, trained, validated and calibrated, beside copies of them under names that are no
    fold's."""
    model = make_trained(tmp_path_factory.mktemp("nnunet"), folds=2, cases=3)
    give_map(model)
    for name in ODD:
        shutil.copytree(model.folder / "fold_1", model.folder / name)
    return model


@pytest.fixture(autouse=True)
def environment(model, monkeypatch):
    for name, value in model.environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "command",
    [
        ("predict", *MODEL, "-i", ".", "-o", "out"),
        ("calibrate", *MODEL, "-map", "calibration_map.json"),
        ("evaluate", *MODEL, "--predict"),
        ("compare", *MODEL, "-tr", "nnUNetTrainer", "nnUNetTrainer+calibrated", "-o", "out"),
    ],
    ids=" ".join,
)
def test_what_is_no_fold_is_refused(model, monkeypatch, capsys, command):
    monkeypatch.chdir(model.folder)
    before = sorted(model.root.rglob("*"))
    for fold in ("00", "0_1", "²", "-1", "0_backup", "0/../fold_1"):
        assert main([*command, "-f", "0", fold]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert f"fold_{fold} has no" in error or f"has no fold {fold} (it has 0, 1)" in error
    assert sorted(model.root.rglob("*")) == before


def test_copies_of_folds_are_left_out_by_every_command(model):
    assert main(["evaluate", *MODEL, "-np", "1"]) == 0
    assert json.loads((model.folder / "calibration.json").read_text())["n_cases"] == 6
    assert TrainedModel.open(model.folder).folds == ("0", "1")  # for `calibrate` and --predict
    # for `compare`
    assert common_folds(
        "", {"one": measurable_folds(model.folder, FINAL)}, ComparisonSettings()
    ) == (["0", "1"], [])
