"""`nnunet_nacl compare` as a user types it."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from nnunet_nacl.cases.record import read_record
from nnunet_nacl.cli.main import main
from tests.comparison.conftest import TRAINERS, made_study, study  # noqa: F401  (fixtures)
from tests.comparison.models import CONFIGURATION, DATASET, make_study
from tests.documents import check_document
from tests.estimators.problems import identity
from tests.metrics.models import map_to_json

NAMES = list(TRAINERS)


def compare(*arguments, trainers=NAMES, dataset=("999",)) -> int:
    which = ["-d", *dataset, "-c", CONFIGURATION, "-tr", *map(str, trainers)]
    return main(["compare", *which, "-np", "1", *map(str, arguments)])


def test_from_models_to_tables_and_figures(study, capsys):  # noqa: F811
    out = study.root / "out"
    assert compare("-o", out, trainers=[NAMES[0], "nnUNetTrainerXYZ"]) == 2
    said = capsys.readouterr().err
    assert "has no model nnUNetTrainerXYZ__nnUNetPlans__" in said
    assert "; type -tr nnUNetTrainerCE, or -tr nnUNetTrainerNACL" in said
    assert compare("-o", out, "-unranked", "Truth") == 2
    assert "-unranked Truth: not among those compared" in capsys.readouterr().err
    assert compare("-o", out, "-findings", "lesion") == 2
    assert "there is no structure 'lesion' to find; there are anterior" in capsys.readouterr().err
    assert compare("-o", out, "-findings", "anterior", trainers=NAMES[::2]) == 0
    data = json.loads((out / "comparison.json").read_text())
    check_document("comparison", data)
    assert data["datasets"][0]["folds"] == ["0", "1"] and len(data["datasets"][0]["cases"]) == 6
    for entry in (*data["tables"], *data["figures"]):
        assert entry["files"] and all((out / name).is_file() for name in entry["files"])
    # the table holds what was measured in the fold folders
    records = [
        read_record(path) for path in study.model("nnUNetTrainerNACL").rglob("records/*.npz")
    ]
    dice = [record.structures.Dice["1"] for record in records]
    rows = list(csv.DictReader((out / "tables" / "segmentation.csv").open()))
    found = {(row["structure"], row["method"]): float(row["Dice"]) for row in rows}
    assert found["anterior", "NACL"] == pytest.approx(np.mean(dice), rel=1e-12)
    assert {row["structure"] for row in rows if row["component F1"]} == {"anterior"}
    tested = {
        row["column"] for row in data["statistics"] if row["family"] == "exploratory_components"
    }
    assert tested == {"component_recall:1", "false_components:1", "component_F1:1"}


def test_patients_are_counted_once_and_what_knows_the_truth_is_not_tested(
    study,  # noqa: F811
    without_figures,
    capsys,
):
    out = study.root / "out"
    pattern = "case_(.)"  # 00, 01, 02 and 10, 11, 12: two patients
    assert compare("-o", out, "-groups", pattern, "-unranked", "NACL") == 0
    data = json.loads((out / "comparison.json").read_text())
    [dataset] = data["datasets"]
    assert dataset["n_patients"] == 2 and dataset["patients"]["case_02"] == "0"
    assert {row["n_patients"] for row in data["statistics"]} == {2} and {
        row["n"] for row in data["statistics"]
    } == {6}
    assert "6 cases of 2 patients" in capsys.readouterr().out
    assert [entry["ranked"] for entry in data["trainers"]] == [True, True, False]
    assert {row["trainer"] for row in data["statistics"]} == {NAMES[1]} and (
        out / "report.html"
    ).is_file()
    # without the flag, as the calibration map of a model that is compared tells
    groups = {case: case[5] for case in dataset["cases"]}
    content = map_to_json({"temperature": identity(1)}, "temperature", {"1": "organ"})
    (study.model(NAMES[1]) / "calibration_map.json").write_text(
        json.dumps(content | {"fitted": {"groups": groups}})
    )
    assert compare("-o", out, "-unranked", "NACL") == 0
    again = json.loads((out / "comparison.json").read_text())
    assert again["statistics"] == data["statistics"] and again["settings"]["groups"] is None


def test_what_is_missing_is_said_everywhere(study, without_figures, capsys):  # noqa: F811
    shutil.rmtree(study.model(NAMES[1]) / "fold_1")
    out = study.root / "out"
    assert compare("-o", out) == 2
    error = capsys.readouterr().err
    assert "nnUNetTrainerCE has no fold 1" in error and "--allow-missing" in error
    assert not (out / "comparison.json").exists()
    assert compare("-o", out, "--allow-missing") == 0
    assert "NOTE: " in capsys.readouterr().out
    for path in (out / "tables").glob("*.csv"):
        rows = list(csv.DictReader(path.open()))
        assert rows and all("fold 0 only" in row["note"] for row in rows), path.name
    assert "fold 0 only" in json.loads((out / "comparison.json").read_text())["notes"][0]


def test_two_data_sets(tmp_path, monkeypatch, without_figures, capsys):
    names = ("Dataset998_Other", DATASET)
    made = make_study(
        tmp_path, {NAMES[0]: 1.0, NAMES[2]: 3.0}, datasets=names, cases=2, shape=(3, 8, 8)
    )
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "out"
    assert compare("-o", out, dataset=["998", "999"], trainers=NAMES[::2]) == 0
    assert "All data sets" in capsys.readouterr().out
    data = json.loads((out / "comparison.json").read_text())
    assert [dataset["name"] for dataset in data["datasets"]] == list(names)
    assert (out / "tables" / "overview.csv").is_file()
    assert compare("-o", out, dataset=["998", "Dataset998_Other"], trainers=NAMES[::2]) == 2
    assert "Dataset998_Other twice" in capsys.readouterr().err


def test_paths_first_then_a_model(study, without_figures, capsys):  # noqa: F811
    out = study.root / "out"
    folder = study.validation(NAMES[1])
    words = ["-i", f"A={folder}", f"B={study.validation(NAMES[2])}", "-tr", NAMES[0]]
    assert (
        main(
            [
                "compare",
                *words,
                "-d",
                "999",
                "-c",
                CONFIGURATION,
                "-f",
                "0",
                "-o",
                str(out),
                "-np",
                "1",
            ]
        )
        == 0
    )
    data = json.loads((out / "comparison.json").read_text())
    assert [entry["label"] for entry in data["trainers"]] == ["A", "B", "Dice + CE (default)"]
    assert {row["reference"] for row in data["statistics"]} == {str(folder)}
    assert main(["compare", *words, "-o", str(out)]) == 2
    assert "add -d DATASET -c CONFIGURATION" in capsys.readouterr().err
    assert main(["compare", *words[:3], "-f", "0", "-o", str(out)]) == 2
    assert "-f chooses folds of -tr" in capsys.readouterr().err
