"""Structures that no case has, and those that the labels always miss: what the commands say of them."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO

import numpy as np

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.cli.main import main
from tests.review_tables import read_list
from tests.runs.folders import write_image, write_prediction
from tests.runs.predictions import SPACING_MM, predictions_in


def said(*arguments) -> str:
    with redirect_stdout(StringIO()) as text:
        assert main([*map(str, arguments), "-np", "1"]) == 0
    return text.getvalue()


def test_a_structure_that_no_case_has_is_named_and_stays_as_the_centre_has_it(tmp_path):
    num, rng = 14, np.random.default_rng(0)  # each structure is worse than the one before; the last is a ghost
    labels = {"background": 0, **{f"s{i}": i for i in range(1, num)}, "ghost": num}
    folder = predictions_in(tmp_path)(labels=labels, cases=0)
    truth = np.zeros((4, 12, 2 * num), np.uint8)
    for label in range(1, num):
        truth[:, 3:9, 2 * label - 1 : 2 * label + 1] = label
    (tmp_path / "truth").mkdir()
    for case in range(10):
        logits = 1.5 * rng.normal(size=(num + 1, *truth.shape))
        logits += (7.0 - 0.45 * truth) * (np.arange(num + 1).reshape(-1, 1, 1, 1) == truth)
        probs = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
        write_prediction(folder, f"case_{case}", probs, probs.argmax(0).astype(np.uint8), SPACING_MM)
        # all of it is invented in the first case
        write_image(truth * (case > 0), tmp_path / "truth" / f"case_{case}.nii.gz", SPACING_MM)
    printed = said("calibrate", "-i", folder, "-gt", tmp_path / "truth", "-o", tmp_path / "map.json")
    assert "ghost: 0 patients tell of it, an interval of 90 % needs 9" in printed
    record = CalibrationMap.load(tmp_path / "map.json")
    assert {row["structure"] for row in record.maps["conditional"]["rows"]} == set(range(num - 1))
    assert record.learned.checks["dice"][str(num)].n == 0
    said("review", "-i", folder, "-map", tmp_path / "map.json", "-o", tmp_path / "out")
    rows = read_list(tmp_path / "out")
    assert sum(float(row["ghost volume_ml"]) > 0 for row in rows) >= 9  # as many as an interval needs
    for value in ("predicted_dice_low", "predicted_volume_low_ml", "present_probability"):
        assert {row[f"ghost {value}"] for row in rows} == {""}
    assert all(row["s1 predicted_dice_low"] for row in rows)
