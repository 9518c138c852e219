"""What is there at all, from `calibrate` to the list, findings.csv and the page."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest

from nnunet_nacl.cli.main import main
from nnunet_nacl.documents.map_file import read_record
from tests.review_tables import read_list
from tests.runs.folders import write_image, write_prediction
from tests.runs.predictions import SPACING_MM, predictions_in
from tests.show.html_check import Page

SHAPE = (4, 16, 16)
LABELS = {"background": 0, "organ": 1, "lesion": 2}


def run(*arguments, status: int = 0) -> None:
    assert main([*map(str, arguments), "-np", "1"]) == status


def make_case(rng, sick: bool, found: bool, false_alarm: bool):
    """Probabilities of an organ and perhaps a lesion; the truth has it if ``sick``, the argmax if ``found``."""
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
    """Predictions and a map that has learned from 24 of them; a third has no lesion, every fourth a false one."""
    root = tmp_path_factory.mktemp("learned")
    folder, truths = predictions_in(root)(labels=LABELS, cases=0), root / "labels"
    truths.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        truth, probs, segmentation = make_case(rng, i % 3 > 0, i % 7 > 0, i % 4 == 0)
        write_prediction(folder, f"case_{i:02}", probs, segmentation, SPACING_MM)
        write_image(truth, truths / f"case_{i:02}.nii.gz", SPACING_MM)
    path = root / "calibration_map.json"
    run("calibrate", "-i", folder, "-gt", truths, "-o", path, "-form", "temperature")
    return folder, path


def table(path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_from_calibrate_to_the_list_and_the_page(learned, predict, tmp_path):
    _, path = learned
    presence = read_record(path).quality.presence
    assert presence.listed == ["2"] and set(presence.present) == set(presence.real) == {"2"}
    assert json.loads(path.read_text())["quality"]["presence"]["checks"]["present"]["2"]["learned"]["auroc"] > 0.9

    new, rng = predict("new", labels=LABELS, cases=0), np.random.default_rng(1)
    kinds = {"healthy": (False, False, False), "false": (False, False, True), "found": (True, True, False)}
    kinds |= {"missed": (True, False, False), "both": (True, True, True)}
    for name, kind in kinds.items():
        _, probs, segmentation = make_case(rng, *kind)
        write_prediction(new, name, probs, segmentation, SPACING_MM)
    run("review", "-i", new, "-o", tmp_path / "out", "-map", path, "-threshold", 0.1)
    rows = {row["case"]: row for row in read_list(tmp_path / "out")}
    present = {case: float(row["lesion present_probability"]) for case, row in rows.items()}
    assert present["healthy"] < 0.3 and present["false"] < 0.5 < min(present["found"], present["both"])
    assert present["missed"] > present["healthy"] and rows["false"]["organ present_probability"] == ""
    assert set(read_record(path).learned["argmax"].scans.predicted) == {"2"}  # the organ is alike in all
    assert {row["organ no_better_than_constant"] for row in rows.values()} == {"yes"}
    assert (
        {row["organ rank_of_dice"] for row in rows.values()}
        == {row["lesion no_better_than_constant"] for row in rows.values()}
        == {""}
    )
    assert rows["healthy"]["reasons"] == "" and rows["healthy"]["empty_structures"] == "lesion"
    assert f"lesion is probably not there ({present['false']:.2f})" in rows["false"]["reasons"]
    assert ("probably there" in rows["missed"]["reasons"]) == (present["missed"] >= 0.5)

    found = table(tmp_path / "out" / "findings.csv")
    assert sorted(row["case"] for row in found) == ["both", "both", "false", "found"]
    real = {(row["case"], row["finding"]): float(row["real_probability"]) for row in found}
    assert min(real["found", "1"], real["both", "1"]) > 0.7 > 0.4 > max(real["false", "1"], real["both", "2"])
    [one] = [row for row in found if row["case"] == "found"]
    assert float(one["volume_ml"]) == pytest.approx(40 * np.prod(SPACING_MM) / 1000, rel=1e-4)
    assert [float(one[f"centre_{axis}_mm"]) for axis in "xyz"] == pytest.approx([11.5 * 0.5, 6.0, 1.5 * 2.0])
    assert float(one["diameter_mm"]) == pytest.approx(np.linalg.norm([4, 5, 2]), rel=1e-4)

    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count('<tr class="finding">') == 4 and "real with a probability of 0." in page
    assert not Page(page).faults and "Probably there, probably not" in page
    assert page.count("predicted Dice no better than a constant<") == 5
    assert page.count("in the scan: 0.") == 5  # of each case, whether it is a reason or not
    run("review", "-i", new, "-o", tmp_path / "out", "-map", path, "-threshold", 0.1, "-findings", "organ")
    assert {row["structure"] for row in table(tmp_path / "out" / "findings.csv")} == {"organ"}
    assert all(row["real_probability"] == "" for row in table(tmp_path / "out" / "findings.csv"))


def test_what_was_calibrated_before_is_not_asked_about(learned, tmp_path):
    folder, path = learned
    run("review", "-i", folder, "-o", tmp_path / "calibrated", "-map", path, "--save_probabilities")
    run("review", "-i", tmp_path / "calibrated", "-o", tmp_path / "again", "-map", path)
    assert read_list(tmp_path / "calibrated")[-1]["lesion present_probability"]
    row = read_list(tmp_path / "again")[0]
    assert row["lesion present_probability"] == "" and row["organ predicted_dice_low"]
    assert {one["real_probability"] for one in table(tmp_path / "again" / "findings.csv")} == {""}


@pytest.mark.parametrize("rule", ["dice", "fbeta"])
def test_decided_labels_have_presence_and_findings_whose_reality_nobody_learned(learned, tmp_path, capsys, rule):
    folder, path = learned
    capsys.readouterr()
    run("review", "-i", folder, "-o", tmp_path / "out", "-map", path, "-decide", rule)
    printed = capsys.readouterr().out
    assert "learned on nnU-Net's own labels: of decided ones findings.csv gives no real_probability" in printed
    rows = read_list(tmp_path / "out")
    assert all(0 < float(row["lesion present_probability"]) < 1 for row in rows)
    assert all((row["organ predicted_dice_low"] != "") == (rule == "dice") for row in rows)
    assert all(float(row["organ predicted_volume_high_ml"]) > 0 for row in rows)
    found = table(tmp_path / "out" / "findings.csv")
    assert {row["structure"] for row in found} == {"lesion"} and {row["real_probability"] for row in found} == {""}


def test_a_structure_has_a_threshold_of_its_own(learned, tmp_path, capsys):
    folder, path = learned
    capsys.readouterr()
    earlier = json.loads(path.read_text())  # of a version that knew no scores
    for learned_of in earlier["quality"]["learned"].values():
        learned_of["scans"] = None
    (tmp_path / "earlier.json").write_text(json.dumps(earlier))
    run("review", "-i", folder, "-o", tmp_path / "usual", "-map", tmp_path / "earlier.json")
    said = r"A predicted Dice below organ (1|0\.\d+), lesion 0\.\d+ is a reason to look"
    assert re.search(said, capsys.readouterr().out)
    usual = read_list(tmp_path / "usual")
    flagged = ["predicted Dice of lesion" in row["reasons"] for row in usual]
    assert 0 < sum(flagged) <= 4 and len(flagged) == 24 and not any(row["score"] for row in usual)
    arguments = ("-map", path, "-threshold", "0", "lesion=1")
    run("review", "-i", folder, "-o", tmp_path / "own", *arguments)
    reasons = [row["reasons"] for row in read_list(tmp_path / "own")]
    assert sum("predicted Dice of lesion" in one for one in reasons) > 10
    assert not any("predicted Dice of organ" in one for one in reasons)
    asked = json.loads((tmp_path / "own" / "prediction.json").read_text())["threshold"]
    assert asked == {"organ": 0.0, "lesion": 1.0}
    run("review", "-i", folder, "-o", tmp_path / "no", "-map", path, "-threshold", "liver=0.5", status=2)
    assert "there is no such structure; there are organ (1), lesion (2)" in capsys.readouterr().err


def test_without_a_map_only_what_is_named_is_listed(learned, tmp_path, capsys):
    folder, _ = learned
    run("review", "-i", folder, "-o", tmp_path / "out")
    assert not (tmp_path / "out" / "findings.csv").exists()
    run("review", "-i", folder, "-o", tmp_path / "out", "-findings")
    found = table(tmp_path / "out" / "findings.csv")
    assert {row["structure"] for row in found} == {"organ", "lesion"} and "findings.csv" in capsys.readouterr().out
    run("review", "-i", folder, "-o", tmp_path / "out", "-findings", "lesions", status=2)
    assert "no structure 'lesions' to find; there are organ, lesion" in capsys.readouterr().err


def test_a_list_that_flags_nothing_says_so(learned, tmp_path):
    folder, path = learned
    content = json.loads(path.read_text())
    content["quality"]["learned"]["argmax"]["scans"]["predicted"] = {}
    (silent := tmp_path / "silent.json").write_text(json.dumps(content))
    run("review", "-i", folder, "-o", tmp_path / "out", "-map", silent)
    said = "No predicted Dice is a reason to look"
    assert [note.startswith(said) for note in json.loads((tmp_path / "out" / "prediction.json").read_text())["notes"]][
        0
    ]
    assert (tmp_path / "out" / "index.html").read_text().count(said) == 1
