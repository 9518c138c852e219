"""Structures that no case has, and those that the labels always miss: what the commands say of them."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO

import numpy as np

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.cli.main import main
from nnunet_nacl.json_files import read_dict
from tests.numbers.models import make_trained
from tests.review_tables import read_list
from tests.runs.folders import CLASSES, write_image, write_prediction
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


def scan(rng, is_sick: bool):
    """An organ, and in sick cases a rare structure inside it: truth is drawn from its probability of about .4."""
    shape, place = (4, 12, 12), (slice(1, 3), slice(3, 9), slice(3, 9))
    truth, probs = np.zeros(shape, np.uint8), np.full((3, *shape), 0.01)
    truth[:, 2:10, 2:10] = 1
    probs[1][truth == 1] = 0.95
    likely = 0.4 if is_sick else 0.02
    probs[2][place] = likely * rng.uniform(0.9, 1.1, (2, 6, 6))
    probs[1][place] = 0.97 - probs[2][place]
    truth[place][rng.random((2, 6, 6)) < (likely if is_sick else 0)] = 2
    probs[0] = 1 - probs[1:].sum(0)
    return truth, probs.astype(np.float32)


def test_every_command_says_what_the_labels_miss(tmp_path, monkeypatch):
    model, rng = make_trained(tmp_path / "nnunet", labels=CLASSES, cases=8, folds=2), np.random.default_rng(0)
    for name, value in model.environment.items():
        monkeypatch.setenv(name, value)
    for fold in (0, 1):
        for i, path in enumerate(sorted(model.validation(fold).glob("*.npz"))):
            truth, probs = scan(rng, i in (0, 1, 3, 5))  # half of them are sick
            write_prediction(path.parent, path.stem, probs, probs.argmax(0).astype(np.uint8), SPACING_MM)
            write_image(truth, model.references / f"{path.stem}.nii.gz", SPACING_MM)
    named, lines = ("-d", "999", "-c", "3d_fullres"), []
    for command in ("calibrate", "evaluate"):
        cells = (" ".join(line.split()) for line in said(command, *named).splitlines())
        lines += [line for line in cells if line.startswith("posterior ") and " of 8 " in line]
    assert lines == ["posterior 0.000 8 of 8 0 of 8"] * 2
    document = read_dict(model.folder / "calibration_map.json")
    assert document["fitted"]["detected"]["2"]["n_absent"] == 8
    assert "1" not in document["quality"]["presence"]["present"]  # always there
    both = ("-tr", "nnUNetTrainer", "nnUNetTrainer+calibrated")
    compared = said("compare", *named, *both, "-o", tmp_path / "out")
    assert " ".join(compared.split()).count(" 0.000 8 of 8 0 of 8") == 2
