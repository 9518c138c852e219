"""`nnunet_nacl evaluate` as a user types it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from nnunet_nacl.cli.main import main
from tests.nnunet.measuring import Watch
from tests.nnunet.untrained import digests
from tests.runs.folders import write_image
from tests.runs.predictions import SPACING_MM


def evaluate(*arguments) -> int:
    return main(["evaluate", *map(str, arguments), "-np", "1"])


def read_cases(folder) -> list[dict]:
    """What calibration.json in a folder says of its cases."""
    return json.loads((folder / "calibration.json").read_text())["metric_per_case"]


def test_a_model_by_name_and_cases_without_prediction(make_validated, capsys):
    model = make_validated(cases=2, folds=2)
    named = ("-d", "Dataset999_Synthetic", "-c", "3d_fullres", "-f", 1)
    folders = ("-i", model.validation(1))
    assert evaluate(*named, "-o", model.root / "fold.json") == 0
    out = capsys.readouterr().out
    assert "fold 1: 2 cases" in out
    assert json.loads((model.root / "fold.json").read_text())["n_cases"] == 2
    for path in model.validation(1).glob("case_11*"):
        path.unlink()
    for command in (named, (*folders, "-gt", model.references)):
        assert evaluate(*command) == 1
        assert "case_11" in capsys.readouterr().err
        assert evaluate(*command, "--chill") == 0
    capsys.readouterr()
    assert evaluate(*named, "--quiet") == 1  # errors, and the last line alone
    said = capsys.readouterr()
    assert said.out.startswith("written: ") and said.out.count("\n") == 1
    assert "case_11" in said.err and "it/s" not in said.err and "case/s" not in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a model"),
        (("-i", "a"), "-gt LABELS go together"),
        (("-d", "999", "-c", "2d"), "no model nnUNetTrainer__nnUNetPlans__2d; type -c 3d_fullres"),
        (
            ("-d", "999", "-c", "3d_fullres", "-bins", str(10**12)),
            "-bins must be an integer from 1 to 10,000, got 1000000000000",
        ),
        (("-d", "999", "-c", "3d_fullres", "-boundary", "nan"), "-boundary must be"),
        (
            ("-d", "999", "-c", "3d_fullres", "-findings", "lesion"),
            "there is no structure 'lesion' to find; there are anterior, posterior",
        ),
    ],
)
def test_bad_arguments_end_in_one_line(make_validated, capsys, arguments, message):
    make_validated(cases=1)
    assert main(["evaluate", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.startswith("nnunet_nacl evaluate: error:")
    assert "Traceback" not in error


def test_components_are_counted_of_lesions_or_of_structures_that_are_named(make_validated, capsys):
    model = make_validated(cases=3, shape=(3, 8, 9))
    corners_of_case = {"case_00": [(0, 0), (0, 4), (6, 0)], "case_01": [(3, 3)], "case_02": []}
    for case, corners in corners_of_case.items():
        truth = np.zeros((3, 8, 9), np.uint8)
        for row, column in corners:
            truth[:, row : row + 2, column : column + 2] = 2
        segmentation = truth.copy()
        segmentation[:, 6:] = 0  # without the third of the first case
        if corners:
            segmentation[0, 7, 8] = 2  # one that is false
        write_image(truth, model.references / f"{case}.nii.gz", SPACING_MM)
        write_image(segmentation, model.validation() / f"{case}.nii.gz", SPACING_MM)
    folders = ("-i", model.validation(), "-gt", model.references, "--csv")
    assert evaluate(*folders) == 0
    [line] = components_printed(capsys.readouterr().out)
    # F1 2 * 2 / (2 * 2 + 1 + 1) and 2 * 1 / (2 * 1 + 0 + 1)
    assert line.split() == ["2", "posterior", "4", "3", "2", "0.8333", "0.6667", "0.6667"]
    reported = [case["metrics"]["2"] for case in read_cases(model.validation())]
    assert [metrics["component_recall"] for metrics in reported] == [2 / 3, 1, None]
    assert [metrics["false_components"] for metrics in reported] == [1, 1, 0]
    table = list(csv.DictReader((model.validation() / "calibration.csv").open()))
    [mean] = [
        float(row["value"])
        for row in table
        if (row["scope"], row["structure"], row["metric"]) == ("mean", "2", "component_F1")
    ]
    assert mean == pytest.approx(2 / 3)

    assert evaluate(*folders, "-findings", "anterior") == 0
    [line] = components_printed(capsys.readouterr().out)
    assert line.split() == ["1", "anterior", "0", "0", "0", "-", "0.0000", "-"]
    assert evaluate(*folders, "-findings") == 0
    assert len(components_printed(capsys.readouterr().out)) == 2


def components_printed(text: str) -> list[str]:
    """The lines of the table of components."""
    _, _, table = text.partition("connected components")
    _, _, *lines = table.split("\n\n")[0].splitlines()
    return [line for line in lines if not line.startswith(" ")]


def test_only_its_own_files_are_replaced(make_validated, capsys):
    model = make_validated(cases=1)
    folders = ("-i", model.validation(), "-gt", model.references)
    comparison = model.root / "comparison.json"
    table = model.validation() / "calibration.csv"
    comparison.write_text(
        '{"schema_version": 1, "generated_by": "nnunet_nacl 0.1.0", "datasets": []}'
    )
    for text in ("age,height\n1,2\n", "scope,case\n"):
        table.write_text(text)
        assert evaluate(*folders, "--csv") == 2
        assert "calibration.csv was not written by" in capsys.readouterr().err
        assert table.read_text() == text
        assert not (model.validation() / "calibration.json").exists()
    assert evaluate(*folders, "-o", comparison) == 2
    assert "comparison.json: not a calibration.json" in capsys.readouterr().err
    assert "datasets" in comparison.read_text()
    table.unlink()
    for _ in range(2):
        assert evaluate(*folders, "--csv") == 0


def test_a_calibration_json_of_others_in_the_folder_of_a_fold_is_refused_before_any_work(
    make_validated, capsys
):
    model = make_validated(cases=1, folds=2)
    command = ("-d", "999", "-c", "3d_fullres")
    mine = model.validation(1) / "calibration.json"
    for text in ('{"mine": 1}', '{"generated_by": "nnunet_nacl 0.1.0", "datasets": []}'):
        mine.write_text(text)
        assert evaluate(*command) == 2
        assert mine.read_text() == text
        assert str(mine) in capsys.readouterr().err
        assert not (model.validation(0) / "records").exists()
    mine.unlink()
    for _ in range(2):
        assert evaluate(*command) == 0
        assert mine.is_file()


def test_through_a_map_it_measures_beside_what_is_known_of_the_folder_as_it_is(
    make_validated, capsys
):
    model = make_validated(cases=6)
    folders = ("-i", model.validation(), "-gt", model.references)
    assert evaluate(*folders) == 0
    assert main(["calibrate", *map(str, folders), "-np", "1", "-form", "temperature"]) == 0
    before = digests(model.validation())
    watch = Watch(model.validation(), model.validation() / "calibrated")
    path = model.validation() / "calibration_map.json"
    for num_measured in (6, 0):
        assert evaluate(*folders, "-map", path) == 0
        assert len(watch.new()) == num_measured
    after = digests(model.validation())
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("calibrated/") for name in after.keys() - before.keys())
    as_predicted = read_cases(model.validation())
    calibrated = read_cases(model.validation() / "calibrated")
    for case, through_map in zip(as_predicted, calibrated, strict=True):
        assert case["metrics"]["1"]["Dice"] == through_map["metrics"]["1"]["Dice"]
        assert case["calibration"]["all"]["NLL"] != through_map["calibration"]["all"]["NLL"]
    # of records alone
    assert evaluate("-i", model.validation() / "calibrated", "-gt", model.references) == 2
