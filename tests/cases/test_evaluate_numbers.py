"""What stands in calibration.json against short scripts that know nothing of the package, and published values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from nnunet_nacl.cli.main import main
from tests.cases.folders import make_model, read, write_image, write_prediction

DATA = Path(__file__).parents[1] / "data" / "authors_code_outputs.npz"
EDGES = (np.arange(1, 16) / 15).astype(np.float32)  # nnU-Net saves float32


def evaluate(*arguments) -> int:
    return main(["evaluate", *map(str, arguments), "-np", "1"])


def gap(confidence, right):
    """Sum over bins (lo, hi] of the voxels' share times |accuracy - confidence|."""
    bins = np.searchsorted(EDGES, confidence)
    return sum(abs((right - confidence)[bins == i].sum()) for i in range(15)) / len(confidence)


def scores(probs, truth):
    """What a mask's entry holds; probs (K, N) in float64, truth (N)."""
    hot = np.eye(len(probs))[truth].T
    errors = [gap(p, y) for p, y in zip(probs, hot)]
    return {
        "n_voxels": truth.size,
        "ECE": gap(probs.max(0), (probs.argmax(0) == truth).astype(float)),
        "CECE_sum": sum(errors),
        "CECE_mean": np.mean(errors),
        "NLL": -np.log((probs * hot).sum(0)).mean(),
        "Brier": ((probs - hot) ** 2).sum(0).mean(),
    }


def test_a_short_script_finds_the_same_numbers(make_validated):
    model = make_validated(cases=2, folds=2, sharpness=2.0)
    assert evaluate("-d", 999, "-c", "3d_fullres") == 0
    document = json.loads((model.folder / "calibration.json").read_text())
    found = {}
    for fold, name in [(fold, f"case_{fold}{i}") for fold in range(2) for i in range(2)]:
        probs = np.load(model.validation(fold) / f"{name}.npz")["probabilities"].astype(float)
        truth, saved = (read(folder / f"{name}.nii.gz") for folder in (model.references, model.validation(fold)))
        winner = probs.argmax(0)
        masks = {
            "foreground": truth > 0,
            "predicted": winner > 0,
            "union": (truth > 0) | (winner > 0),
            "all": truth >= 0,
        }
        [entry] = [case for case in document["metric_per_case"] if case["case"] == name]
        for mask, inside in masks.items():
            for metric, value in scores(probs[:, inside], truth[inside]).items():
                assert entry["calibration"][mask][metric] == pytest.approx(value, abs=1e-9), (name, mask, metric)
            found.setdefault(mask, []).append((probs[:, inside], truth[inside]))
        for key in (1, 2):
            dice = 2 * ((truth == key) & (saved == key)).sum() / ((truth == key).sum() + (saved == key).sum())
            assert entry["metrics"][str(key)]["Dice"] == pytest.approx(dice, abs=1e-12)
    for mask, parts in found.items():
        pooled = scores(np.concatenate([p for p, _ in parts], 1), np.concatenate([t for _, t in parts]))
        means = {metric: np.mean([scores(p, t)[metric] for p, t in parts]) for metric in pooled}
        for metric, value in pooled.items():
            assert document["calibration"]["pooled"][mask][metric] == pytest.approx(value, abs=1e-9), (mask, metric)
            if metric != "n_voxels":
                mean = document["calibration"]["mean"][mask]
                assert mean[metric] == pytest.approx(means[metric], abs=1e-9), (mask, metric)


def test_the_papers_evaluation_gives_what_the_authors_code_gave(tmp_path, capsys):
    data = np.load(DATA)
    truth = data["eval_labels"].astype(np.uint8)
    probs = softmax(data["eval_logits"], axis=1).transpose(1, 0, 2, 3)
    labels = {"background": 0, "a": 1, "b": 2, "c": 3}
    model = make_model(tmp_path, labels=labels, cases=1, shape=truth.shape, spacing_mm=(1, 1, 1))
    write_image(truth, model.references / "case_00.nii.gz", (1, 1, 1))
    write_prediction(model.validation(), "case_00", probs, probs.argmax(0).astype(np.uint8), (1, 1, 1))
    assert evaluate(model.references, model.validation(), "--paper") == 0
    paper = json.loads((model.validation() / "calibration.json").read_text())["paper"]
    ece, cece = (round(float(data[f"eval/{name}_foreground"]), 4) for name in ("ece", "cece"))
    assert (paper["ece"], paper["cece"]) == (ece, cece)
    [row] = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["foreground"]][-1:]
    assert row == ["foreground", f"{ece:.4f}", f"{cece:.4f}"]


def test_the_papers_evaluation_of_a_case_without_a_class_and_of_other_spacing(make_validated):
    model = make_validated(cases=2, spacing_mm=(5.0, 1.0, 0.5), sharpness=2.0)
    for folder, absent in ((model.references, 2), (model.validation(), 1)):  # truth has only 1, prediction only 2
        path = folder / "case_00.nii.gz"
        array = read(path)
        write_image(np.where(array == absent, 0, array), path, (5.0, 1.0, 0.5))
    assert evaluate(model.references, model.validation(), "--paper") == 0
    document = json.loads((model.validation() / "calibration.json").read_text())
    first, second = (document["paper"]["per_case"][f"case_0{i}"] for i in range(2))
    ours = {case["case"]: case for case in document["metric_per_case"]}
    assert first["dsc"] == {"1": 0.0, "2": 1.0} and first["hd95_voxels"] == {"1": 0.0, "2": 0.0}
    assert ours["case_00"]["metrics"]["2"]["Dice"] == 0.0 and ours["case_00"]["metrics"]["2"]["HD95_mm"] is None
    assert document["paper"]["dsc"]["2"] == (1 + second["dsc"]["2"]) / 2
    probs = np.load(model.validation() / "case_00.npz")["probabilities"].astype(float)
    truth = read(model.references / "case_00.nii.gz")
    inside = probs[:, truth == 1]
    errors = [gap(inside[0], np.zeros(inside.shape[1])), gap(inside[1], np.ones(inside.shape[1]))]  # not class 2
    assert first["cece"] == round(np.mean(errors), 4)
    assert first["ece"] == round(ours["case_00"]["calibration"]["foreground"]["ECE"], 4)
    # unit spacing: the same folder with other voxels has the same paper scores, but other distances in mm
    for folder in (model.references, model.validation()):
        for path in folder.glob("*.nii.gz"):
            write_image(read(path), path, (1.0, 1.0, 1.0))
    assert evaluate(model.references, model.validation(), "--paper") == 0
    again = json.loads((model.validation() / "calibration.json").read_text())
    assert again["paper"] == document["paper"]
    assert again["foreground_mean"]["HD95_mm"] != document["foreground_mean"]["HD95_mm"]


@pytest.mark.integration  # nnU-Net starts a process
def test_an_ensembles_folder_needs_the_plans_of_its_members(make_validated, capsys):
    from nnunetv2.ensembling.ensemble import ensemble_folders

    model = make_validated(cases=1)
    members, output = model.root / "members", model.root / "merged"
    members.mkdir()
    for path in [*model.validation().iterdir(), model.folder / "dataset.json", model.folder / "plans.json"]:
        (members / path.name).write_bytes(path.read_bytes())
    ensemble_folders([str(members), str(members)], str(output), save_merged_probabilities=True, num_processes=1)
    assert evaluate(model.references, output) == 2 and "-pfile" in capsys.readouterr().err
    assert evaluate(model.references, output, "-pfile", members / "plans.json") == 0
    assert json.loads((output / "calibration.json").read_text())["n_cases"] == 1
