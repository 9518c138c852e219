"""The published evaluation against a slow transcription of its definition, and against the authors'
code."""

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
from nnunet_nacl_paper.protocol import scores_of
from tests.metrics.test_counting import random_classes
from tests.reference.metrics import class_metrics, distance_to_nearest, weighted_gap
from tests.runs.folders import REGIONS, make_model, read, write_image, write_prediction

DATA = Path(__file__).parents[3] / "tests" / "data" / "authors_code_outputs.npz"


def scored(probs, truth):
    segmentation, metrics = probs.argmax(0), {}
    for k in range(1, probs.shape[0]):
        overlap = count_overlap(truth == k, segmentation == k)
        distance = hausdorff(surface_distances(truth == k, segmentation == k))
        voxels = None if math.isnan(distance) else distance
        counts = {"TP": overlap.tp, "FP": overlap.fp, "FN": overlap.fn}
        metrics[str(k)] = counts | {"distances": {"HD95_voxels": voxels}}
    bins = {
        name: sums.tolist()
        for name, sums in asdict(count_masks(probs, truth)["foreground"]).items()
    }
    largest = int(truth.max())
    return scores_of({"largest_label": largest, "metrics": metrics, "bins": {"foreground": bins}})


def slow(probs, truth):
    segmentation, dsc, distance = probs.argmax(0), {}, {}
    for k in range(1, probs.shape[0]):
        a, b = truth == k, segmentation == k
        dsc[str(k)] = 1.0 if not a.any() else round(2 * (a & b).sum() / (a.sum() + b.sum()), 4)
        distance[str(k)] = 0.0
        if a.any() and b.any():
            s, t = surface_voxels(a), surface_voxels(b)
            both = np.concatenate([distance_to_nearest(s, t, 1.0), distance_to_nearest(t, s, 1.0)])
            distance[str(k)] = float(np.percentile(both, 95))
    foreground = truth > 0
    ece = round(class_metrics(probs, truth, foreground)["ECE"], 4)
    chosen = [p.tolist() for p in probs[:, foreground]]
    labels = truth[foreground]
    errors = [weighted_gap(chosen[k], (labels == k).tolist()) for k in range(int(truth.max()) + 1)]
    return dsc, distance, ece, round(sum(errors) / len(errors), 4)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_definition(seed):
    probs, truth = random_classes(seed, 4, (5, 6, 7), 3.0)
    truth[truth == 3 - seed % 2] = 0  # absent in the truth: the largest label, or one below it
    if seed == 2:
        probs[2] = 0  # never predicted
        probs /= probs.sum(0)
    scores = scored(probs, truth)
    dsc, distance, ece, cece = slow(probs, truth)
    assert scores.dsc == dsc and scores.hd95_voxels == pytest.approx(distance)
    assert scores.ece == ece and scores.cece == cece


def evaluate(model, *flags):
    """What both commands leave of a model's validation: calibration.json and the paper's scores."""
    assert (
        nnunet_nacl(
            [
                "evaluate",
                "-i",
                str(model.validation()),
                "-gt",
                str(model.references),
                "-np",
                "1",
                *flags,
            ]
        )
        == 0
    )
    assert main(["evaluate", str(model.validation())]) == 0
    names = ("calibration.json", "paper_scores.json")
    return [json.loads((model.validation() / name).read_text()) for name in names]


def test_it_gives_what_the_authors_code_gave(tmp_path, capsys):
    data = np.load(DATA)
    truth = data["eval_labels"].astype(np.uint8)
    probs = softmax(data["eval_logits"], axis=1).transpose(1, 0, 2, 3)
    labels = {"background": 0, "a": 1, "b": 2, "c": 3}
    model = make_model(tmp_path, labels=labels, cases=1, shape=truth.shape, spacing_mm=(1, 1, 1))
    write_image(truth, model.references / "case_00.nii.gz", (1, 1, 1))
    write_prediction(
        model.validation(), "case_00", probs, probs.argmax(0).astype(np.uint8), (1, 1, 1)
    )
    _, paper = evaluate(model)
    ece, cece = (round(float(data[f"eval/{name}_foreground"]), 4) for name in ("ece", "cece"))
    assert (paper["ece"], paper["cece"]) == (ece, cece)
    assert f"foreground: ECE {ece:.4f}, CECE {cece:.4f}" in capsys.readouterr().out


def test_a_case_without_a_class_an_empty_case_and_other_spacing(make_validated):
    model = make_validated(cases=3, spacing_mm=(5.0, 1.0, 0.5), sharpness=2.0)
    # truth has only 1, prediction only 2
    for folder, absent in ((model.references, 2), (model.validation(), 1)):
        path = folder / "case_00.nii.gz"
        array = read(path)
        write_image(np.where(array == absent, 0, array), path, (5.0, 1.0, 0.5))
        write_image(np.zeros_like(array), folder / "case_02.nii.gz", (5.0, 1.0, 0.5))
    document, paper = evaluate(model)
    first, second, empty = (paper["per_case"][f"case_0{i}"] for i in range(3))
    ours = {case["case"]: case for case in document["metric_per_case"]}
    assert first["dsc"] == {"1": 0.0, "2": 1.0} and first["hd95_voxels"] == {"1": 0.0, "2": 0.0}
    assert (
        ours["case_00"]["metrics"]["2"]["Dice"] == 0.0
        and ours["case_00"]["metrics"]["2"]["HD95_mm"] is None
    )
    assert paper["dsc"]["2"] == pytest.approx((2 + second["dsc"]["2"]) / 3, abs=1e-15)
    assert empty["ece"] is None and paper["ece"] == (first["ece"] + second["ece"]) / 2
    assert first["ece"] == round(ours["case_00"]["calibration"]["foreground"]["ECE"], 4)
    # unit spacing: the same folder with other voxels has the same paper scores, but other distances
    # in mm
    for folder in (model.references, model.validation()):
        for path in folder.glob("*.nii.gz"):
            write_image(read(path), path, (1.0, 1.0, 1.0))
    again, same = evaluate(model)
    assert (
        same == paper
        and again["foreground_mean"]["HD95_mm"] != document["foreground_mean"]["HD95_mm"]
    )


def test_what_cannot_be_scored_is_said(make_validated, tmp_path, capsys):
    model = make_validated(cases=1, labels=REGIONS)
    files = (
        "-djfile",
        str(model.folder / "dataset.json"),
        "-pfile",
        str(model.folder / "plans.json"),
    )
    assert (
        nnunet_nacl(
            [
                "evaluate",
                "-i",
                str(model.validation()),
                "-gt",
                str(model.references),
                "-np",
                "1",
                *files,
            ]
        )
        == 0
    )
    assert main(["evaluate", str(model.validation())]) == 2
    assert "defined for classes only" in capsys.readouterr().err
    (tmp_path / "calibration.json").write_text('{"regions": false}')
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "is no calibration.json (KeyError: 'structures')" in capsys.readouterr().err
