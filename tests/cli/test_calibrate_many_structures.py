"""Many structures, one of them in no held-out case."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.cli.main import main
from tests.review_tables import read_list
from tests.runs.folders import write_image, write_prediction
from tests.runs.predictions import predictions_in

N, CASES, SPACING_MM = 14, 10, (2.0, 1.0, 0.5)
GHOST = str(N)
LABELS = {"background": 0, **{f"s{i}": i for i in range(1, N)}, "ghost": N}


def said(*arguments, status=0) -> str:
    with redirect_stdout(StringIO()) as text:
        assert main([*map(str, arguments), "-np", "1"]) == status
    return text.getvalue()


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, str]:
    """Predictions, their truth, a map, and what `calibrate` said: each structure is worse than the one before."""
    root, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    folder = predictions_in(root)(labels=LABELS, cases=0)
    (root / "truth").mkdir()
    truth = np.zeros((4, 12, 2 * N), np.uint8)
    for label in range(1, N):
        truth[:, 3:9, 2 * label - 1 : 2 * label + 1] = label
    for case in range(CASES):
        logits = 1.5 * rng.normal(size=(N + 1, *truth.shape))
        logits += (7.0 - 0.45 * truth) * (np.arange(N + 1).reshape(-1, 1, 1, 1) == truth)
        probs = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
        write_prediction(folder, f"case_{case}", probs, probs.argmax(0).astype(np.uint8), SPACING_MM)
        there = truth * (case > 0)  # all of it is invented in the first case
        write_image(there, root / "truth" / f"case_{case}.nii.gz", SPACING_MM)
    return root, said("calibrate", "-i", folder, "-gt", root / "truth", "-o", root / "map.json")


def test_a_structure_that_no_case_has_is_named_and_stays_as_the_centre_has_it(study, tmp_path):
    root, printed = study
    assert "ghost: 0 patients tell of it, an interval of 90 % needs 9" in printed
    assert "nothing is said of ghost: 0 yes and 10 no" in printed
    record = CalibrationMap.load(root / "map.json")
    fitted = record.maps["conditional"]["rows"]
    assert {row["structure"] for row in fitted} == set(range(N - 1))  # all but the ghost, the last
    assert record.learned.checks["dice"][GHOST].n == 0
    scores = record.learned.scores
    assert np.nanmax(scores.dice[GHOST]) == 0 and not scores.always  # it was invented; one case has nothing
    said("review", "-i", root / "predictions", "-map", root / "map.json", "-o", tmp_path / "out")
    rows = read_list(tmp_path / "out")
    invented = [row for row in rows if float(row["ghost volume_ml"])]
    assert len(invented) >= 9  # as many as an interval needs
    for value in ("predicted_dice_low", "predicted_volume_low_ml", "present_probability"):
        assert {row[f"ghost {value}"] for row in rows} == {""}
    assert all(row["s1 predicted_dice_low"] for row in rows)
