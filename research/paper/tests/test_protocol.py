"""The published evaluation against a slow transcription of its definition, and authors' code."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from nnunet_nacl.cli.main import main as nnunet_nacl
from nnunet_nacl.metrics import count_masks, count_overlap
from nnunet_nacl.metrics.surfaces import hausdorff, surface_distances, surface_voxels
from nnunet_nacl_paper.main import main
from nnunet_nacl_paper.protocol import PaperScores, scores_of
from tests.metrics.test_counting import random_classes
from tests.reference.metrics import class_metrics, distance_to_nearest, weighted_gap
from tests.runs.folders import REGIONS, Model, make_model, read, write_image, write_prediction

DATA = Path(__file__).parents[3] / "tests" / "data" / "authors_code_outputs.npz"


def score(probs: np.ndarray, truth: np.ndarray) -> PaperScores:
    """Scores of what calibration.json would hold of a case."""
    segmentation = probs.argmax(0)
    metrics = {}
    for k in range(1, len(probs)):
        overlap = count_overlap(truth == k, segmentation == k)
        distance = hausdorff(surface_distances(truth == k, segmentation == k))
        hd95_voxels = None if math.isnan(distance) else distance
        metrics[str(k)] = {
            "TP": overlap.tp,
            "FP": overlap.fp,
            "FN": overlap.fn,
            "distances": {"HD95_voxels": hd95_voxels},
        }
    sums = asdict(count_masks(probs, truth)["foreground"])
    foreground = {name: values.tolist() for name, values in sums.items()}
    return scores_of(
        {
            "largest_label": int(truth.max()),
            "metrics": metrics,
            "bins": {"foreground": foreground},
        }
    )


def score_slowly(probs: np.ndarray, truth: np.ndarray) -> PaperScores:
    """The definition, transcribed."""
    segmentation = probs.argmax(0)
    dsc = {}
    hd95_voxels = {}
    for k in range(1, len(probs)):
        dsc[str(k)] = slow_dice(truth == k, segmentation == k)
        hd95_voxels[str(k)] = slow_hd95(truth == k, segmentation == k)
    foreground = truth > 0
    labels = truth[foreground]
    errors = []
    for k in range(int(truth.max()) + 1):
        p_of_class = probs[k, foreground].tolist()
        errors.append(weighted_gap(p_of_class, (labels == k).tolist()))
    return PaperScores(
        dsc=dsc,
        hd95_voxels=hd95_voxels,
        ece=round(class_metrics(probs, truth, foreground)["ECE"], 4),
        cece=round(sum(errors) / len(errors), 4),
    )


def slow_dice(truth: np.ndarray, segmentation: np.ndarray) -> float:
    if not truth.any():
        return 1.0
    return round(2 * (truth & segmentation).sum() / (truth.sum() + segmentation.sum()), 4)


def slow_hd95(truth: np.ndarray, segmentation: np.ndarray) -> float:
    if not truth.any() or not segmentation.any():
        return 0.0
    surface = surface_voxels(truth)
    predicted_surface = surface_voxels(segmentation)
    to_predicted = distance_to_nearest(surface, predicted_surface, 1.0)
    to_truth = distance_to_nearest(predicted_surface, surface, 1.0)
    return float(np.percentile(np.concatenate([to_predicted, to_truth]), 95))


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_definition(seed):
    probs, truth = random_classes(seed, 4, (5, 6, 7), 3.0)
    truth[truth == 3 - seed % 2] = 0  # absent in the truth: the largest label, or one below it
    if seed == 2:
        probs[2] = 0  # never predicted
        probs /= probs.sum(0)
    scores = score(probs, truth)
    expected = score_slowly(probs, truth)
    assert scores.dsc == expected.dsc
    assert scores.hd95_voxels == pytest.approx(expected.hd95_voxels)
    assert scores.ece == expected.ece
    assert scores.cece == expected.cece


def measure_validation(model: Model, *flags: str) -> None:
    """Let the package write calibration.json of a model's validation."""
    folders = ["-i", str(model.validation()), "-gt", str(model.references)]
    assert nnunet_nacl(["evaluate", *folders, "-np", "1", *flags]) == 0


def evaluate(model: Model) -> tuple[dict, dict]:
    """What both commands leave of a model's validation: calibration.json and the paper's scores."""
    measure_validation(model)
    assert main(["evaluate", str(model.validation())]) == 0
    document = json.loads((model.validation() / "calibration.json").read_text())
    return document, json.loads((model.validation() / "paper_scores.json").read_text())


def test_it_gives_what_the_authors_code_gave(tmp_path, capsys):
    data = np.load(DATA)
    truth = data["eval_labels"].astype(np.uint8)
    probs = softmax(data["eval_logits"], axis=1).transpose(1, 0, 2, 3)
    labels = {"background": 0, "a": 1, "b": 2, "c": 3}
    model = make_model(tmp_path, labels=labels, cases=1, shape=truth.shape, spacing_mm=(1, 1, 1))
    segmentation = probs.argmax(0).astype(np.uint8)
    write_image(truth, model.references / "case_00.nii.gz", (1, 1, 1))
    write_prediction(model.validation(), "case_00", probs, segmentation, (1, 1, 1))
    _, paper = evaluate(model)
    ece = round(float(data["eval/ece_foreground"]), 4)
    cece = round(float(data["eval/cece_foreground"]), 4)
    assert (paper["ece"], paper["cece"]) == (ece, cece)
    assert f"foreground: ECE {ece:.4f}, CECE {cece:.4f}" in capsys.readouterr().out


SPACING_MM = (5.0, 1.0, 0.5)


def make_three_cases(make_validated) -> Model:
    """In case_00 the truth has only class 1, the prediction only class 2; case_02 is empty."""
    model = make_validated(cases=3, spacing_mm=SPACING_MM, sharpness=2.0)
    for folder, absent in ((model.references, 2), (model.validation(), 1)):
        path = folder / "case_00.nii.gz"
        array = read(path)
        write_image(np.where(array == absent, 0, array), path, SPACING_MM)
        write_image(np.zeros_like(array), folder / "case_02.nii.gz", SPACING_MM)
    return model


def test_a_class_that_is_absent_in_the_truth_has_dice_1_and_distance_0(make_validated):
    document, paper = evaluate(make_three_cases(make_validated))
    first = paper["per_case"]["case_00"]
    assert first["dsc"] == {"1": 0.0, "2": 1.0}
    assert first["hd95_voxels"] == {"1": 0.0, "2": 0.0}
    of_package = {case["case"]: case for case in document["metric_per_case"]}["case_00"]
    assert of_package["metrics"]["2"]["Dice"] == 0.0
    assert of_package["metrics"]["2"]["HD95_mm"] is None
    assert first["ece"] == round(of_package["calibration"]["foreground"]["ECE"], 4)


def test_an_empty_case_counts_for_dice_alone(make_validated):
    _, paper = evaluate(make_three_cases(make_validated))
    first, second, empty = paper["per_case"].values()
    assert paper["dsc"]["2"] == pytest.approx((1 + second["dsc"]["2"] + 1) / 3, abs=1e-15)
    assert empty["ece"] is None
    assert paper["ece"] == (first["ece"] + second["ece"]) / 2


def test_the_size_of_voxels_does_not_matter(make_validated):
    model = make_three_cases(make_validated)
    document, paper = evaluate(model)
    for folder in (model.references, model.validation()):
        for path in folder.glob("*.nii.gz"):
            write_image(read(path), path, (1.0, 1.0, 1.0))
    other_document, same_paper = evaluate(model)
    assert same_paper == paper
    hd95_mm = document["foreground_mean"]["HD95_mm"]
    assert other_document["foreground_mean"]["HD95_mm"] != hd95_mm


def test_regions_cannot_be_scored(make_validated, capsys):
    model = make_validated(cases=1, labels=REGIONS)
    dataset = str(model.folder / "dataset.json")
    measure_validation(model, "-djfile", dataset, "-pfile", str(model.folder / "plans.json"))
    assert main(["evaluate", str(model.validation())]) == 2
    assert "defined for classes only" in capsys.readouterr().err


def test_another_document_cannot_be_scored(tmp_path, capsys):
    (tmp_path / "calibration.json").write_text('{"regions": false}')
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "is no calibration.json (KeyError: 'structures')" in capsys.readouterr().err
