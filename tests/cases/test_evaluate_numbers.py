"""What stands in calibration.json against short scripts that know nothing of the package, and published values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_nacl.cli.main import main
from tests.cases.folders import read

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
