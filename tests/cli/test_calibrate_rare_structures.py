"""A structure that is never the most probable class: every command says alike that it is missed."""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest

from nnunet_nacl.cli.main import main
from nnunet_nacl.json_files import read_dict
from tests.numbers.models import make_trained
from tests.runs.folders import CLASSES, write_image, write_prediction

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


def test_every_command_says_what_the_labels_miss(study, tmp_path):
    calibrated = said("calibrate", *MODEL, "-form", "shift")
    document = read_dict(study.folder / "calibration_map.json")
    assert document["fitted"]["detected"]["2"] == {"dice": 0.0, "n_there": 8, "missed": 8, "n_absent": 8, "invented": 0}
    assert "1" not in document["quality"]["presence"]["present"]  # always there
    assert found_in(calibrated) == [f"{NAME} 0.000 8 of 8 0 of 8"]
    assert found_in(said("evaluate", *MODEL)) == found_in(calibrated)
    both = ("-tr", "nnUNetTrainer", "nnUNetTrainer+calibrated")
    compared = said("compare", *MODEL, *both, "-o", tmp_path / "out", "--no_page", "-bootstrap", "100")
    assert " ".join(compared.split()).count(" 0.000 8 of 8 0 of 8") == 2
