"""`nnunet_nacl review -decide dice` as a user types it."""

from __future__ import annotations

import csv
import json
import pickle

import numpy as np
import pytest

from nnunet_nacl.cli.main import main
from tests.prediction.test_saved_predictions_decided import write_truths
from tests.runs.folders import read, write_prediction
from tests.runs.predictions import SPACING_MM


def decide(*arguments) -> int:
    return main(["review", "-decide", "dice", *map(str, arguments), "-np", "1"])


def test_decided_segmentations_in_one_command(predict, tmp_path, capsys):
    assert decide("-i", predict(), "-o", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "decision.json").read_text())
    changed = sum(case["n_changed"] for case in document["cases"])
    assert changed and f"3 cases decided, {changed} voxels have another label." in printed
    row = next(line for line in printed.splitlines() if line.startswith("anterior")).split()
    rows = [case["structures"]["1"] for case in document["cases"]]
    assert row[1:3] == [str(sum(r["gained"] for r in rows)), str(sum(r["lost"] for r in rows))]
    means = [np.mean([r[f"expected_dice_{when}"] for r in rows]) for when in ("before", "after")]
    assert row[3:] == [f"{mean:.4f}" for mean in means]
    assert "true Dice" not in printed


def test_true_dice_has_an_interval_of_its_difference(predict, tmp_path, capsys):
    source = predict()
    truths = write_truths(tmp_path / "truths")
    (truths / "case_2.nii.gz").unlink()
    assert decide("-i", source, "-o", tmp_path / "out", "-gt", truths) == 0
    printed = capsys.readouterr().out
    rows = [c["structures"]["1"] for c in json.loads((tmp_path / "out/decision.json").read_text())["cases"][:2]]
    before, after = ([row[f"dice_{when}"] for row in rows] for when in ("before", "after"))
    changes = sorted(b - a for a, b in zip(before, after))  # of two cases the interval is from one to the other
    numbers = f"{np.mean(before):.4f}  {np.mean(after):.4f}  {np.mean(changes):+.4f}"
    line = next(line for line in printed.splitlines() if line.startswith("Dice anterior"))
    assert numbers in line and f"{changes[0]:+.4f} to " in line and line.endswith(" 2")
    assert "1 cases have no ground truth" in printed and "patients" not in printed
    arguments = ("-i", source, "-o", tmp_path / "out", "-gt", truths, "-groups", "case_[0-1]|case_2")
    assert decide(*arguments, "-groups", "case") == 0  # all of one patient
    printed = capsys.readouterr().out
    assert f"{np.mean(before):.4f} " in printed and "nan" not in printed and "over 1 patients" in printed
    assert decide(*arguments) == 0 and " to " in capsys.readouterr().out.partition("true Dice")[2]


def test_what_was_removed_is_said(predict, tmp_path, capsys, monkeypatch):
    from nnunet_nacl.cli.review_text import decision_lines
    from nnunet_nacl.documents.decision_json import DecidedCase, DecidedStructure

    nan = float("nan")
    gone = DecidedStructure(5, 0, 0, 5, 9.0, 0.4, nan, nan, nan)
    kept = DecidedStructure(10, 12, 2, 0, 11.0, 0.6, 0.8, nan, nan)
    cases = [DecidedCase("a", {"1": kept}, 2, 1, False), DecidedCase("b", {"1": gone}, 5, 1, False)]
    text = "\n".join(decision_lines(cases, {"1": "tumour"}))
    assert "removed altogether: tumour in b" in text
    assert "0.5000   0.4000" in text  # what was removed counts 0, rather than leaving the mean


def test_of_many_structures_the_ten_with_the_lowest_dice_are_printed():
    from nnunet_nacl.cli.review_text import decision_lines
    from nnunet_nacl.documents.decision_json import DecidedCase, DecidedStructure

    names = {str(i): f"organ{i}" for i in range(1, 119)}
    rows = {key: DecidedStructure(9, 9, 0, 0, 9.0, 0.5, int(key) / 200, 0.5, 0.6) for key in names}
    rows["100"] = DecidedStructure(0, 9, 9, 0, 9.0, float("nan"), 0.9, float("nan"), float("nan"))
    cases = [DecidedCase(name, rows, 1, 1, True) for name in "abc"]
    lines = "\n".join(decision_lines(cases, names)).splitlines()
    shown = [line.split()[0] for line in lines if line.startswith("organ")]
    assert shown == [f"organ{i}" for i in range(1, 11)]
    assert [line.split()[1] for line in lines if line.startswith("Dice")] == shown
    assert "the 10 worst, and 108 more (--verbose)" in lines
    assert lines[-1] == "1 of the other structures were removed or added in some cases (--verbose)"
    every = decision_lines(cases, names, every=True)
    assert sum(line.startswith("organ") for line in every) == 118 and "added: organ100 in" in every[-1]


def test_postprocessing_is_chosen_by_nnunet_and_applied_to_others(predict, warm_nnunet, tmp_path, capsys):
    source = predict()
    truths = write_truths(tmp_path / "truths")
    for i in range(3):  # a clear structure of each class, and a false piece far away, which removal mends
        truth = read(truths / f"case_{i}.nii.gz")
        truth[0] = 0
        spotted = truth.copy()
        spotted[0, 0, 0] = spotted[0, 13, 11] = 1
        probs = np.stack([np.where(spotted == k, 0.9, 0.05) for k in range(3)]).astype(np.float32)
        write_prediction(source, f"case_{i}", probs, spotted, SPACING_MM)
        write_prediction(truths, f"case_{i}", probs, truth, SPACING_MM)
    out = tmp_path / "out"
    assert decide("-i", source, "-o", out, "-gt", truths, "--postprocessing") == 0
    with open(out / "postprocessing.pkl", "rb") as file:
        functions, _ = pickle.load(file)
    assert functions and f"{len(functions)} steps chosen" in capsys.readouterr().out
    assert read(out / "case_0.nii.gz")[0].any() and not read(out / "postprocessed" / "case_0.nii.gz")[0].any()
    again = tmp_path / "again"
    assert decide("-i", source, "-o", again, "-pp_pkl_file", out / "postprocessing.pkl") == 0
    np.testing.assert_array_equal(
        read(again / "postprocessed" / "case_1.nii.gz"), read(out / "postprocessed" / "case_1.nii.gz")
    )


def test_problems_are_listed_and_the_rest_is_done(predict, tmp_path, capsys):
    source = predict()
    (source / "case_0.npz").write_bytes(b"PK")
    (source / "case_1.npz").unlink()
    assert decide("-i", source, "-o", tmp_path / "out") == 1
    out, err = capsys.readouterr()
    assert "1 cases decided" in out and "2 could not be done" in err and "case_0.npz" in err and "case_1.npz" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-i", "nowhere", "-o", "out"), "nowhere: no such folder"),
        (("-i", "predictions", "-o", "predictions"), "hoose another -o"),
        (("-i", "predictions", "-o", "out", "--postprocessing"), "give its folder with -gt"),
        (("-i", "predictions", "-o", "out", "-gt", "nowhere"), "nowhere: no such folder"),
        (("-i", "predictions", "-o", "out", "-pp_pkl_file", "nowhere.pkl"), "nowhere.pkl: cannot be read"),
        (("-i", "predictions", "-o", "out", "-groups", "x"), "give the ground truth with -gt"),
        (("-i", "predictions", "-o", "out", "-gt", "predictions", "-groups", "p(.)"), "no patient for 3 cases"),
    ],
)
def test_errors_are_one_line(predict, tmp_path, monkeypatch, capsys, arguments, message):
    predict()
    monkeypatch.chdir(tmp_path)
    assert main(["review", "-decide", "dice", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("nnunet_nacl review: error: ") and message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_scans_drawn_by_chance_and_the_folder_for_slicer(predict, tmp_path, capsys):
    source, out, images = predict(), tmp_path / "out", tmp_path / "images"
    images.mkdir()
    arguments = ["review", "-i", str(source), "-o", str(out), "-np", "1", "-also", "2", "--slicer"]
    assert main(arguments) == 2 and "nnUNet_raw" in capsys.readouterr().err and not out.exists()
    for i in range(3):
        (images / f"case_{i}_0000.nii.gz").write_bytes((source / f"case_{i}.nii.gz").read_bytes())
    (source / "predict_from_raw_data_args.json").write_text(json.dumps({"list_of_lists_or_source_folder": str(images)}))
    assert main(arguments) == 0
    printed, record = capsys.readouterr().out, json.loads((out / "prediction.json").read_text())
    with open(out / "review.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    others = [row["case"] for row in rows if row["flag"] == "no"]
    assert record["drawn"] == {"seed": 0, "cases": sorted(record["drawn"]["cases"])} and len(others) >= 2
    assert len(record["drawn"]["cases"]) == 2 and set(record["drawn"]["cases"]) <= set(others)
    assert f"Drawn by chance, to be looked at too: {', '.join(record['drawn']['cases'])}" in printed
    with open(out / "review" / "mapping.csv", newline="") as file:
        paths = [(row["img_path"], row["mask_path"]) for row in csv.DictReader(file)]
    copies = out / "review" / "to_edit"
    assert paths == [
        (str(images / f"{row['case']}_0000.nii.gz"), str(copies / f"{row['case']}.nii.gz")) for row in rows
    ]
    (copies / "case_0.nii.gz").unlink()
    (out / "outcome.json").touch()
    assert main(arguments) == 0 and "keeps 2 masks" in capsys.readouterr().out  # the ledger knows every case still
    assert (copies / "case_0.nii.gz").read_bytes() == (out / "case_0.nii.gz").read_bytes()
    assert not (out / "outcome.json").exists()  # which was of the list before
