"""`nnunet_nacl.evaluate` gives the numbers of the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from nnunet_nacl import calibrate, evaluate
from nnunet_nacl.cases.case import MadeBy
from nnunet_nacl.cases.record import read_record, save_again
from nnunet_nacl.cli.main import main
from nnunet_nacl.nnunet.folders import validated_fold
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import checksum


def test_a_folders_numbers_are_those_of_the_command(make_validated):
    model = make_validated(cases=3)
    folder = model.validation()
    assert (
        main(
            [
                "evaluate",
                "-i",
                str(folder),
                "-gt",
                str(model.references),
                "-bad",
                "0.9",
                "--csv",
                "-np",
                "1",
            ]
        )
        == 0
    )
    report, table = (folder / f"calibration.{ending}" for ending in ("json", "csv"))
    expected = json.loads(report.read_text()), table.read_text()
    report.unlink()
    table.unlink()

    result = evaluate(folder, model.references, bad=0.9, csv=True)
    assert not report.exists()  # before it is asked for
    assert result.write() == [report, table]
    assert (json.loads(report.read_text()), table.read_text()) == expected

    document = expected[0]
    dice = result.table.groupby("key").Dice.mean()
    assert dice.to_dict() == pytest.approx(
        {key: mean["Dice"] for key, mean in document["mean"].items()}
    )
    for aggregate in ("mean", "pooled"):
        scores = document["calibration"][aggregate]["predicted"]
        assert result.calibration.loc[aggregate, "predicted"][
            list(scores)
        ].to_dict() == pytest.approx(scores)
    assert result.scores["NLL:all"].mean() == pytest.approx(
        document["calibration"]["mean"]["all"]["NLL"]
    )
    assert (
        result.bad == {"1": 0.9, "2": 0.9} and result.quality["n_cases"] == 3 and not result.failed
    )


def test_a_models_folds_and_what_is_missing(make_validated):
    model = make_validated(cases=2, folds=2)
    for path in model.validation(1).glob("case_11*"):
        path.unlink()
    result = evaluate(model=model.folder)
    assert list(result.failed) == ["case_11"] and sorted(result.scores.index) == [
        "case_00",
        "case_01",
        "case_10",
    ]
    assert not evaluate(model=model.folder, chill=True).failed
    assert result.write() == [model.folder / "calibration.json"]
    of_fold = json.loads((model.validation(1) / "calibration.json").read_text())
    assert [case["case"] for case in of_fold["metric_per_case"]] == ["case_10"]


def test_another_checkpoint_has_a_validation_of_its_own(make_validated):
    model = make_validated(cases=2)
    with pytest.raises(UserError, match="validation folder of checkpoint_best.pth"):
        evaluate(model=model.folder, checkpoint="checkpoint_best.pth")
    predicted = model.validation().with_name("validation_checkpoint_best")
    shutil.copytree(model.validation(), predicted)
    (predicted / "case_01.npz").unlink()
    (predicted / "case_01.nii.gz").unlink()
    result = evaluate(model=model.folder, checkpoint="checkpoint_best.pth", chill=True)
    assert result.folder == predicted and list(result.scores.index) == ["case_00"]
    checkpoint = predicted.with_name("checkpoint_best.pth")
    checkpoint.write_bytes(b"the network that predicted")
    path = predicted / "records" / "case_00.npz"
    made_by = MadeBy(checkpoint=checksum(checkpoint))
    save_again(replace(read_record(path), made_by=made_by), path)
    assert evaluate(model=model.folder, checkpoint="checkpoint_best.pth", chill=True).scores.size
    checkpoint.write_bytes(b"another one")
    with pytest.raises(UserError, match="case_00 was predicted by another network than"):
        evaluate(model=model.folder, checkpoint="checkpoint_best.pth", chill=True)
    assert validated_fold(predicted) == "0"
    assert validated_fold(model.folder / "fold_0" / "validation_of_mine") == ""


def test_through_a_map_the_table_has_intervals(make_validated):
    model = make_validated(cases=10, sharpness=2.0)
    folder = model.validation()
    calibrate(predictions=folder, labels=model.references, form="temperature").write()
    result = evaluate(folder, model.references, calibration_map=folder / "calibration_map.json")
    assert (result.table.predicted_dice_low <= result.table.predicted_dice_high).all()
    assert result.output == folder / "calibrated" / "calibration.json"
    assert any("cases of the same names" in caveat for caveat in result.caveats)


def test_what_does_not_go_together_is_refused_before_the_work(make_validated):
    model = make_validated(cases=1)
    for arguments, message in (
        ({}, "name a folder of predictions, or a model"),
        ({"predictions": model.validation(), "predict": True}, "predict=True needs a model"),
        ({"model": model.folder, "calibration_map": "map.json"}, "not with a model"),
        ({"predictions": model.validation(), "output": "report.txt"}, "must end with .json"),
        ({"predictions": model.validation(), "bad": 7}, "bad is a Dice"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(**arguments)
    assert not (model.validation() / "records").exists()
