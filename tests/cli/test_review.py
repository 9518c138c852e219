"""`nnunet_nacl review` as a user types it: from `calibrate` to the list, findings.csv and the page;
and for Slicer."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.cli.main import main
from tests.comparison.html_check import Page
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
    truth = np.zeros(SHAPE, np.uint8)
    organ = np.full(SHAPE, 0.02)
    lesion = np.full(SHAPE, 0.01)
    organ[:, 2:14, 2:8] = rng.uniform(0.85, 0.98)
    truth[:, 2:14, 2:8] = 1
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
    folder = predictions_in(root)(labels=LABELS, cases=0)
    truths = root / "labels"
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
    rows = [line.split() for line in printed.getvalue().splitlines()]
    missed = [row[-6:] for row in rows if row[:1] == ["lesion"] and "of" in row]
    assert missed == [["2", "of", "16", "2", "of", "8"]] * 2, printed.getvalue()
    return folder, path


def table(path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


SCANS = {
    "healthy": (False, False, False),
    "false": (False, False, True),
    "found": (True, True, False),
    "missed": (True, False, False),
    "both": (True, True, True),
}
"""Of each new scan whether it has a lesion, whether that is found, and whether there is a false
alarm."""
BAD = 0.8


@dataclass(frozen=True)
class Reviewed:
    """What `review` made of the new scans, of which at least a lesion's Dice of .8 is wanted.

    Attributes:
        calibration: The map.
        output: The folder.
        printed: What the command said.
    """

    calibration: CalibrationMap
    output: Path
    printed: str

    @property
    def rows(self) -> dict[str, dict[str, str]]:
        """The list, by scan."""
        return {row["case"]: row for row in read_list(self.output)}

    @property
    def findings(self) -> list[dict[str, str]]:
        return table(self.output / "findings.csv")

    @property
    def present(self) -> dict[str, float]:
        """By scan how probably it has a lesion."""
        column = "lesion present_probability"
        return {case: float(row[column]) for case, row in self.rows.items()}

    @property
    def flags(self) -> dict:
        """What prediction.json says of the flags."""
        return json.loads((self.output / "prediction.json").read_text())["flags"]


@pytest.fixture(scope="module")
def reviewed(learned, tmp_path_factory) -> Reviewed:
    _, path = learned
    root = tmp_path_factory.mktemp("reviewed")
    new = predictions_in(root)(labels=LABELS, cases=0)
    rng = np.random.default_rng(1)
    for name, kind in SCANS.items():
        _, probs, segmentation = make_case(rng, *kind)
        write_prediction(new, name, probs, segmentation, SPACING_MM)
    output = root / "out"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run("review", "-i", new, "-o", output, "-map", path, "-bad", BAD, "-find", 0.8)
    return Reviewed(CalibrationMap.load(path), output, printed.getvalue())


def test_how_probably_a_lesion_is_there_is_learned_and_said(reviewed: Reviewed):
    presence = reviewed.calibration.quality.presence
    assert presence.listed == ["2"]
    assert set(presence.present) == {"2"}
    present = reviewed.present
    assert present["healthy"] < 0.3
    assert present["false"] < 0.5 < min(present["found"], present["both"])
    assert present["missed"] > present["healthy"]
    rows = reviewed.rows
    assert rows["false"]["organ present_probability"] == ""
    assert rows["healthy"]["reasons"] == ""
    assert rows["healthy"]["empty_structures"] == "lesion"
    assert f"lesion probably absent ({present['false']:.2f})" in rows["false"]["reasons"]


def test_lesions_are_listed_by_part(reviewed: Reviewed):
    assert sorted(row["case"] for row in reviewed.findings) == ["both", "both", "false", "found"]
    [lesion] = [row for row in reviewed.findings if row["case"] == "found"]
    assert lesion["voxels"] == "40"
    assert float(lesion["volume_ml"]) == pytest.approx(40 * np.prod(SPACING_MM) / 1000, rel=1e-4)
    centre = [float(lesion[f"centre_{axis}_mm"]) for axis in "xyz"]
    assert centre == pytest.approx([11.5 * 0.5, 6.0, 1.5 * 2.0])
    assert 0.5 < float(lesion["mean_probability"]) <= float(lesion["max_probability"]) < 1


def test_all_bad_scans_among_those_of_the_map_set_the_threshold_of_flags(reviewed: Reviewed):
    n_bad = 4  # two false ones in healthy cases, two missed
    flags = reviewed.flags
    scores = reviewed.calibration.learned.scores
    assert scores.always == ["1"]
    assert flags["threshold"] == max(sorted(scores.score["2"])[:n_bad]) - BAD
    assert flags["bad"] == {"organ": BAD, "lesion": BAD}
    assert (flags["find"], flags["miss"]) == (0.8, None)
    assert (flags["share_found"], flags["share_flagged"]) == (1.0, n_bad / 24)
    assert flags["n_bad_patients"] == n_bad


def test_scans_are_listed_by_score_and_flagged_below_the_threshold(reviewed: Reviewed):
    rows = reviewed.rows
    scores = {case: float(row["score"]) for case, row in rows.items()}
    assert list(scores.values()) == sorted(scores.values())
    assert set(list(scores)[:2]) == {"missed", "false"}
    for case, row in rows.items():
        organ_dice = float(row["organ predicted_dice"])
        lesion_dice = row["lesion predicted_dice"]
        lesion_score = float(lesion_dice or 1 - reviewed.present[case])
        expected = min(organ_dice, lesion_score) - BAD
        assert scores[case] == pytest.approx(expected, abs=6e-5)
        is_below = expected <= reviewed.flags["threshold"]
        assert ("lesion: predicted Dice" in row["reasons"]) == (is_below and bool(lesion_dice))
        assert (row["flag"] == "yes") == bool(row["reasons"]) == (case in ("missed", "false"))


def test_the_page_says_what_is_printed_and_shows_each_part(reviewed: Reviewed):
    page = (reviewed.output / "index.html").read_text()
    sentence, _, aim = reviewed.printed.splitlines()[0].partition(". ")
    assert sentence == (
        "2 of 5 scans are flagged, 1 because a structure was not segmented, 1 because a structure"
        " is probably absent"
    )
    assert aim.startswith("Aim for patients like")
    assert f"{sentence}." in page
    assert aim in page
    assert not Page(page).faults
    listed = [row["case"] for row in reviewed.findings]
    for case in SCANS:
        text = (reviewed.output / "review" / f"{case}.html").read_text()
        assert text.count("<li>lesion: ") == listed.count(case)


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


def test_what_is_bad_may_be_said_of_one_structure(learned, tmp_path):
    folder, path = learned
    output = tmp_path / "out"
    run("review", "-i", folder, "-o", output, "-map", path, "-bad", "lesion=1", "-miss", 0.1)
    reasons = [row["reasons"] for row in read_list(output)]
    assert sum("lesion: predicted Dice" in reason for reason in reasons) > 2
    flags = json.loads((output / "prediction.json").read_text())["flags"]
    assert flags["bad"] == {"lesion": 1.0}
    assert (flags["find"], flags["miss"]) == (None, 0.1)
    assert flags["n_bad_patients"] == 8


def test_with_too_few_bad_patients_scans_are_ranked_only(learned, tmp_path):
    folder, path = learned
    output = tmp_path / "out"
    bad = ("-bad", 0.8, "-structures", "lesion")
    run("review", "-i", folder, "-o", output, "-map", path, *bad)
    flags = json.loads((output / "prediction.json").read_text())["flags"]
    assert flags["bad"] == {"lesion": 0.8}
    assert flags["why_not"] == (
        "finding 0.9 takes 9 calibration patients with a bad scan, there are 4; 0.8 can be had"
    )
    assert not [row for row in read_list(output) if "predicted Dice" in row["reasons"]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-bad", 0.8, "-find", 0.9), "there are 4; 0.8 can be had."),
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
    output = tmp_path / "out"
    run("review", "-i", folder, "-o", output)
    assert not (output / "findings.csv").exists()
    run("review", "-i", folder, "-o", output, "-findings")
    assert {row["structure"] for row in table(output / "findings.csv")} == {"organ", "lesion"}
    run("review", "-i", folder, "-o", output, "-map", path, "-findings", "organ")
    assert {row["structure"] for row in table(output / "findings.csv")} == {"organ"}


def test_scans_chosen_by_chance_and_the_folder_for_slicer(predict, tmp_path, capsys):
    source = predict()
    out = tmp_path / "out"
    images = tmp_path / "images"
    images.mkdir()
    arguments = ["review", "-i", str(source), "-o", str(out), "-np", "1", "-also", "2", "--slicer"]
    assert main(arguments) == 2
    assert "nnUNet_raw" in capsys.readouterr().err
    assert not out.exists()
    for i in range(3):
        (images / f"case_{i}_0000.nii.gz").write_bytes((source / f"case_{i}.nii.gz").read_bytes())
    (source / "predict_from_raw_data_args.json").write_text(
        json.dumps({"list_of_lists_or_source_folder": str(images)})
    )
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    record = json.loads((out / "prediction.json").read_text())
    with open(out / "review.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    others = [row["case"] for row in rows if row["flag"] == "no"]
    chosen = record["random_check"]
    assert chosen == sorted(chosen)
    assert len(chosen) == 2 <= len(others)
    assert set(chosen) <= set(others)
    assert f"Chosen by chance, to be looked at too: {', '.join(chosen)}" in printed
    with open(out / "review" / "mapping.csv", newline="") as file:
        paths = [(row["img_path"], row["mask_path"]) for row in csv.DictReader(file)]
    copies = out / "review" / "to_edit"
    assert paths == [
        (str(images / f"{row['case']}_0000.nii.gz"), str(copies / f"{row['case']}.nii.gz"))
        for row in rows
    ]
    (copies / "case_0.nii.gz").unlink()
    # the list knows every case still
    assert main(arguments) == 0
    assert "keeps 2 masks" in capsys.readouterr().out
    assert (copies / "case_0.nii.gz").read_bytes() == (out / "case_0.nii.gz").read_bytes()
