"""`nnunet_nacl review` as a user types it: from `calibrate` to the list, findings.csv and the page;
and for Slicer."""

from __future__ import annotations

import contextlib
import csv
import io
import json

import numpy as np
import pytest

from nnunet_nacl.calibrator.calibration_map import CalibrationMap
from nnunet_nacl.cli.main import main
from tests.reports.html_check import Page
from tests.review_tables import read_list
from tests.runs.folders import write_image, write_prediction
from tests.runs.predictions import SPACING_MM, predictions_in

SHAPE = (4, 16, 16)
LABELS = {"background": 0, "organ": 1, "lesion": 2}


def run(*arguments, status: int = 0) -> None:
    assert main([*map(str, arguments), "-np", "1"]) == status


def make_case(rng, sick: bool, found: bool, false_alarm: bool):
    """Probabilities of an organ and perhaps a lesion; the truth has it if ``sick``, the argmax if
    ``found``."""
    truth, organ, lesion = np.zeros(SHAPE, np.uint8), np.full(SHAPE, 0.02), np.full(SHAPE, 0.01)
    organ[:, 2:14, 2:8], truth[:, 2:14, 2:8] = rng.uniform(0.85, 0.98), 1
    if sick:
        truth[1:3, 4:9, 10:14] = 2
        lesion[1:3, 4:9, 10:14] = rng.uniform(0.7, 0.95) if found else rng.uniform(0.3, 0.45)
    if false_alarm:
        lesion[0, 12:14, 12] = rng.uniform(0.52, 0.65)
    organ = np.clip(organ + rng.normal(0, 0.005, SHAPE), 0.001, 0.98)
    lesion = np.clip(lesion + rng.normal(0, 0.003, SHAPE), 0.001, 0.99 - organ)
    probs = np.stack([1 - organ - lesion, organ, lesion]).astype(np.float32)
    return truth, probs, probs.argmax(0).astype(np.uint8)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Predictions and a map that has learned from 24 of them; a third has no lesion, every fourth a
    false one."""
    root = tmp_path_factory.mktemp("learned")
    folder, truths = predictions_in(root)(labels=LABELS, cases=0), root / "labels"
    truths.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        truth, probs, segmentation = make_case(rng, i % 3 > 0, i % 7 > 0, i % 4 == 0)
        write_prediction(folder, f"case_{i:02}", probs, segmentation, SPACING_MM)
        write_image(truth, truths / f"case_{i:02}.nii.gz", SPACING_MM)
    path = root / "calibration_map.json"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run("calibrate", "-i", folder, "-gt", truths, "-o", path, "-form", "temperature")
        run("evaluate", "-i", folder, "-gt", truths)
    missed = [
        line
        for line in printed.getvalue().splitlines()
        if line.strip().startswith("lesion ") and " of " in line
    ]
    assert [line.split()[-6:] for line in missed] == [["2", "of", "16", "2", "of", "8"]] * 2, (
        printed.getvalue()
    )
    return folder, path


def table(path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_from_calibrate_to_the_list_and_the_page(learned, predict, tmp_path, capsys):
    _, path = learned
    calibration, out = CalibrationMap.load(path), tmp_path / "out"
    assert calibration.quality.presence.listed == ["2"] and set(
        calibration.quality.presence.present
    ) == {"2"}
    new, rng = predict("new", labels=LABELS, cases=0), np.random.default_rng(1)
    kinds = {
        "healthy": (False, False, False),
        "false": (False, False, True),
        "found": (True, True, False),
    }
    kinds |= {"missed": (True, False, False), "both": (True, True, True)}
    for name, kind in kinds.items():
        _, probs, segmentation = make_case(rng, *kind)
        write_prediction(new, name, probs, segmentation, SPACING_MM)
    capsys.readouterr()
    run("review", "-i", new, "-o", out, "-map", path, "-bad", 0.8, "-find", 0.8)
    rows, found = {row["case"]: row for row in read_list(out)}, table(out / "findings.csv")
    present = {case: float(row["lesion present_probability"]) for case, row in rows.items()}
    assert present["healthy"] < 0.3 and present["false"] < 0.5 < min(
        present["found"], present["both"]
    )
    assert (
        present["missed"] > present["healthy"] and rows["false"]["organ present_probability"] == ""
    )
    assert rows["healthy"]["reasons"] == "" and rows["healthy"]["empty_structures"] == "lesion"
    assert f"lesion probably absent ({present['false']:.2f})" in rows["false"]["reasons"]

    assert sorted(row["case"] for row in found) == ["both", "both", "false", "found"]
    [lesion] = [row for row in found if row["case"] == "found"]
    assert float(lesion["volume_ml"]) == pytest.approx(40 * np.prod(SPACING_MM) / 1000, rel=1e-4)
    assert [float(lesion[f"centre_{axis}_mm"]) for axis in "xyz"] == pytest.approx(
        [11.5 * 0.5, 6.0, 1.5 * 2.0]
    )
    assert (
        0.5 < float(lesion["mean_probability"]) <= float(lesion["max_probability"]) < 1
        and lesion["voxels"] == "40"
    )

    flags = json.loads((out / "prediction.json").read_text())["flags"]
    scores, n_bad = calibration.learned.scores, 4  # two false ones in healthy cases, two missed
    assert (
        scores.always == ["1"]
        and flags["threshold"] == max(sorted(scores.score["2"])[:n_bad]) - 0.8
    )
    assert (flags["bad"], flags["find"], flags["miss"]) == (
        {"organ": 0.8, "lesion": 0.8},
        0.8,
        None,
    )
    assert (flags["share_found"], flags["share_flagged"], flags["n_bad_patients"]) == (
        1.0,
        n_bad / 24,
        n_bad,
    )
    score = {case: float(row["score"]) for case, row in rows.items()}
    assert list(score.values()) == sorted(score.values()) and set(list(score)[:2]) == {
        "missed",
        "false",
    }
    for case, row in rows.items():
        dice = [row[f"{name} predicted_dice"] for name in ("organ", "lesion")]
        expected = min(float(dice[0]), float(dice[1] or 1 - present[case])) - 0.8
        assert score[case] == pytest.approx(expected, abs=6e-5)
        assert ("lesion: predicted Dice" in row["reasons"]) == (
            expected <= flags["threshold"] and bool(dice[1])
        )
        assert (row["flag"] == "yes") == bool(row["reasons"]) == (case in ("missed", "false"))
    first = capsys.readouterr().out.splitlines()[0]
    page = (out / "index.html").read_text()
    flagged = (
        "2 of 5 scans are flagged, 1 because a structure was not segmented, 1 because a structure"
        " is probably absent"
    )
    sentence, _, aim = first.partition(". ")
    assert sentence == flagged and aim.startswith("Aim for patients like")
    assert f"{sentence}." in page and aim in page and not Page(page).faults
    pages = {path.stem: path.read_text() for path in (out / "review").glob("*.html")}
    shown = {case: text.count("<li>lesion: ") for case, text in pages.items()}
    assert shown == {case: [row["case"] for row in found].count(case) for case in rows}


def refused(capsys, output, *arguments) -> str:
    """What a review says that is refused, before it writes anything."""
    capsys.readouterr()
    run("review", "-o", output, *arguments, status=2)
    assert not output.exists()
    [said] = capsys.readouterr().err.splitlines()
    return said.removeprefix("nnunet_nacl review: error: ")


def test_what_was_calibrated_before_is_not_asked_about(learned, tmp_path, capsys):
    folder, path = learned
    run("review", "-i", folder, "-o", tmp_path / "calibrated", "-map", path, "--save_probabilities")
    run("review", "-i", tmp_path / "calibrated", "-o", tmp_path / "again", "-map", path)
    assert read_list(tmp_path / "calibrated")[-1]["lesion present_probability"]
    row = read_list(tmp_path / "again")[0]
    assert row["lesion present_probability"] == "" and row["organ predicted_dice_low"]


def test_what_is_bad_may_be_said_of_one_structure_and_too_few_patients_rank_only(learned, tmp_path):
    folder, path = learned
    run(
        "review",
        "-i",
        folder,
        "-o",
        tmp_path / "out",
        "-map",
        path,
        "-bad",
        "lesion=1",
        "-miss",
        0.1,
    )
    assert (
        sum("lesion: predicted Dice" in row["reasons"] for row in read_list(tmp_path / "out")) > 2
    )
    flags = json.loads((tmp_path / "out" / "prediction.json").read_text())["flags"]
    assert (flags["bad"], flags["find"], flags["miss"], flags["n_bad_patients"]) == (
        {"lesion": 1.0},
        None,
        0.1,
        8,
    )
    run(
        "review",
        "-i",
        folder,
        "-o",
        tmp_path / "out",
        "-map",
        path,
        "-bad",
        0.8,
        "-structures",
        "lesion",
    )
    flags = json.loads((tmp_path / "out" / "prediction.json").read_text())["flags"]
    why = (
        "-find 0.9 takes 9 calibration patients with a bad scan, there are 4; -find 0.8 can be had"
    )
    assert flags["why_not"] == why and flags["bad"] == {"lesion": 0.8}
    assert not any("predicted Dice" in row["reasons"] for row in read_list(tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-bad", 0.8, "-find", 0.9), "there are 4; -find 0.8 can be had."),
        (
            ("-bad", "liver=0.5"),
            "-bad liver: there is no such structure; there are organ (1), lesion (2).",
        ),
        (
            ("-find", 0.9),
            "-find goes with -bad, the Dice below which a scan is bad, such as -bad 0.7.",
        ),
        (("-findings", "lesions"), "no structure 'lesions' to find; there are organ, lesion"),
    ],
)
def test_what_cannot_be_had_is_one_sentence_and_nothing_is_written(
    learned, tmp_path, capsys, arguments, said
):
    folder, path = learned
    assert said in refused(capsys, tmp_path / "out", "-i", folder, "-map", path, *arguments)


def test_only_what_is_named_is_listed(learned, tmp_path):
    folder, path = learned
    run("review", "-i", folder, "-o", tmp_path / "out")
    assert not (tmp_path / "out" / "findings.csv").exists()
    for options, names in (((), {"organ", "lesion"}), (("organ", "-map", path), {"organ"})):
        run("review", "-i", folder, "-o", tmp_path / "out", "-findings", *options)
        assert {row["structure"] for row in table(tmp_path / "out" / "findings.csv")} == names


def test_scans_chosen_by_chance_and_the_folder_for_slicer(predict, tmp_path, capsys):
    source, out, images = predict(), tmp_path / "out", tmp_path / "images"
    images.mkdir()
    arguments = ["review", "-i", str(source), "-o", str(out), "-np", "1", "-also", "2", "--slicer"]
    assert main(arguments) == 2 and "nnUNet_raw" in capsys.readouterr().err and not out.exists()
    for i in range(3):
        (images / f"case_{i}_0000.nii.gz").write_bytes((source / f"case_{i}.nii.gz").read_bytes())
    (source / "predict_from_raw_data_args.json").write_text(
        json.dumps({"list_of_lists_or_source_folder": str(images)})
    )
    assert main(arguments) == 0
    printed, record = capsys.readouterr().out, json.loads((out / "prediction.json").read_text())
    with open(out / "review.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    others = [row["case"] for row in rows if row["flag"] == "no"]
    chosen = record["random_check"]
    assert (
        chosen == sorted(chosen)
        and len(chosen) == 2 < len(others) + 1
        and set(chosen) <= set(others)
    )
    assert f"Chosen by chance, to be looked at too: {', '.join(chosen)}" in printed
    with open(out / "review" / "mapping.csv", newline="") as file:
        paths = [(row["img_path"], row["mask_path"]) for row in csv.DictReader(file)]
    copies = out / "review" / "to_edit"
    assert paths == [
        (str(images / f"{row['case']}_0000.nii.gz"), str(copies / f"{row['case']}.nii.gz"))
        for row in rows
    ]
    (copies / "case_0.nii.gz").unlink()
    # the ledger knows every case still
    assert main(arguments) == 0 and "keeps 2 masks" in capsys.readouterr().out
    assert (copies / "case_0.nii.gz").read_bytes() == (out / "case_0.nii.gz").read_bytes()
