"""A structure that is never the most probable class: found by a decision, and every command says so alike."""

from __future__ import annotations

import math
import os
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest

from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.calibration.presence import FEATURES, LearnedPresence, LearnedProbability
from nnunet_nacl.cli.main import main
from nnunet_nacl.io.case import Case
from nnunet_nacl.io.geometry import Geometry
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.io.probabilities import CalibratedProbabilities, SavedProbabilities
from nnunet_nacl.io.treatment import present_in
from nnunet_nacl.json_files import read_dict
from tests.calibration.models import make_trained
from tests.runs.folders import CLASSES, read, write_image, write_prediction

NAME = "posterior"
SPACING_MM = (2.0, 1.0, 0.5)
SICK = (0, 1, 3, 5)  # of the eight cases of a fold


def scan(rng, sick: bool):
    """An organ, and in sick cases a rare structure inside it: truth is drawn from its probability of about .4."""
    shape, place = (4, 12, 12), (slice(1, 3), slice(3, 9), slice(3, 9))
    truth, probs = np.zeros(shape, np.uint8), np.full((3, *shape), 0.01)
    truth[:, 2:10, 2:10] = 1
    probs[1][truth == 1] = 0.95
    likely = 0.4 if sick else 0.02
    probs[2][place] = likely * rng.uniform(0.9, 1.1, (2, 6, 6))
    probs[1][place] = 0.97 - probs[2][place]
    truth[place][rng.random((2, 6, 6)) < (likely if sick else 0)] = 2
    probs[0] = 1 - probs[1:].sum(0)
    return truth, probs.astype(np.float32)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two folds of eight cases, half of them sick."""
    made = make_trained(tmp_path_factory.mktemp("rare") / "nnunet", labels=CLASSES, cases=8, folds=2)
    rng = np.random.default_rng(0)
    for fold in (0, 1):
        for i, path in enumerate(sorted(made.validation(fold).glob("*.npz"))):
            truth, probs = scan(rng, i in SICK)
            write_prediction(path.parent, path.stem, probs, probs.argmax(0).astype(np.uint8), SPACING_MM)
            write_image(truth, made.references / f"{path.stem}.nii.gz", SPACING_MM)
    before = dict(os.environ)
    os.environ.update(made.environment)
    yield made
    os.environ.clear()
    os.environ.update(before)


MODEL = ("-d", "999", "-c", "3d_fullres")


def said(*arguments) -> str:
    with redirect_stdout(StringIO()) as text:
        assert main([*map(str, arguments), "-np", "1"]) == 0
    return text.getvalue()


def found_in(text: str) -> list[str]:
    """Cells of the lines about the rare structure."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip().startswith(NAME) and " of 8 " in line]


def test_every_command_says_what_the_decision_finds(study, tmp_path):
    calibrated = said("calibrate", *MODEL, "-form", "shift")
    document = read_dict(study.folder / "calibration_map.json")
    argmax, decided = (document["detected"][kind]["2"] for kind in ("argmax", "decided"))
    assert argmax == {"dice": 0.0, "n_there": 8, "missed": 8, "n_absent": 8, "invented": 0}
    assert decided["missed"] == 0 and decided["invented"] == 0 and 0.4 < decided["dice"] < 0.7
    assert "1" not in {key for key, one in document["quality"]["presence"]["present"].items()}  # always there
    lines = found_in(calibrated)
    assert lines[0] == f"{NAME} nnU-Net's labels 0.000 8 of 8 0 of 8"
    assert lines[1] == f"{NAME} decided (-decide dice) {decided['dice']:.3f} 0 of 8 0 of 8"
    assert found_in(said("evaluate", *MODEL)) == lines[:1]
    both = ("-tr", "nnUNetTrainer", "nnUNetTrainer+calibrated")
    compared = found_in(said("compare", *MODEL, *both, "-o", tmp_path / "out", "--no_page", "-bootstrap", "100"))
    assert all(line.endswith("0.000 8 of 8 0 of 8") for line in compared[:2])


def test_a_new_scan_gets_the_structure_where_it_is_probably_there(study, tmp_path):
    said("calibrate", *MODEL, "-form", "shift")
    path = study.folder / "calibration_map.json"
    scans = tmp_path / "scans"
    shutil.copytree(study.validation(0), scans)
    for name in ("dataset.json", "plans.json"):
        shutil.copyfile(study.folder / name, scans / name)
    text = said("review", "-i", scans, "-map", path, "-decide", "dice", "-o", tmp_path / "out")
    sick = [f"case_0{i}" for i in SICK]
    assert f"added: {NAME} in {', '.join(sick)}" in text
    for i in range(8):
        assert (read(tmp_path / "out" / f"case_0{i}.nii.gz") == 2).any() == (i in SICK)


def test_presence_is_asked_of_the_networks_own_probabilities_in_its_own_unit(study):
    labels = PredictionFolder.open(study.validation(0)).labels
    rng = np.random.default_rng(0)
    probs = rng.dirichlet([5, 2, 1], (2, 3, 4)).transpose(3, 0, 1, 2)
    geometry = Geometry((2.0, 1.0, 0.5), np.eye(4))
    source = CalibratedProbabilities(SavedProbabilities(probs, False), LogOddsMap([0.5, 0.5], [1.0, 1.0]))
    case = Case("case", labels, geometry, probs.argmax(0), source)
    learned = LearnedProbability(0.3, np.array([0.5, 0.2]), np.zeros(2), np.ones(2), 9, 5, 9)
    presence = LearnedPresence(geometry.voxel_size, {"2": learned}, {}, ["2"], geometry.unit, FEATURES)
    every = np.sort(probs[2].ravel())[::-1]  # the best set of voxels is the first of these
    dice = (2 * every.cumsum() / (every.sum() + np.arange(1, every.size + 1))).max()
    expected = presence.present_probability("2", probs[2].sum() * geometry.voxel_size, dice)
    np.testing.assert_allclose(present_in(case, presence), [math.nan, expected], rtol=1e-4)
    assert np.isnan(present_in(case, replace(presence, features=""))).all()  # of an earlier version
    assert np.isnan(present_in(case, replace(presence, unit="pixels"))).all()
    assert np.isnan(present_in(replace(case, labels=replace(labels, ignore_label=3)), presence)).all()


def test_decided_labels_are_called_so_and_nothing_is_known_of_what_was_calibrated_before(study, tmp_path):
    said("calibrate", *MODEL, "-form", "shift")
    path, scans = study.folder / "calibration_map.json", tmp_path / "scans"
    shutil.copytree(study.validation(0), scans)
    for name in ("dataset.json", "plans.json"):
        shutil.copyfile(study.folder / name, scans / name)
    review = ("review", "-map", path, "--save_probabilities")
    said(*review, "-i", scans, "-decide", "dice", "-o", tmp_path / "decided")
    evaluated = said("evaluate", "-i", tmp_path / "decided", "-gt", study.references, "--chill")
    assert "nnU-Net's labels" not in evaluated
    said(*review, "-i", scans, "-o", tmp_path / "calibrated")
    text = said(*review, "-i", tmp_path / "calibrated", "-decide", "dice", "-o", tmp_path / "again")
    assert "the decision did not know what is there" in text and f"added: {NAME}" not in text
