"""Sums from samples against those of all voxels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.case.sampling import draw_sample
from nnunet_nacl.case.under import count_sample
from nnunet_nacl.nnunet.prediction_folder import find_fold_folders
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from nnunet_nacl.runs.evaluate import evaluate_case
from nnunet_nacl.runs.heldout import HeldOut, case_values
from tests.numbers.problems import read_held_out
from tests.runs.folders import CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE

LABELS = {
    "classes": CLASSES,
    "classes_ignore": CLASSES_WITH_IGNORE,
    "regions": REGIONS,
    "regions_ignore": REGIONS_WITH_IGNORE,
}


def conditional(regions: bool) -> LogOddsMap:
    """A map that differs by label, and would choose other labels in places."""
    slopes, offsets = [[0.6, 1.3], [0.9, 0.4], [0.5, 1.1]], [[-0.4, 0.7], [-0.9, 0.2], [0.3, -1.0]]
    return LogOddsMap(slopes[1:], offsets[1:], True) if regions else LogOddsMap(slopes, offsets)


def crop(model) -> None:
    """As if nnU-Net had cropped the first rows away: background for certain there."""
    for path in model.validation(0).glob("*.npz"):
        probs = np.load(path)["probabilities"]
        probs[:, :, :3] = 0
        if len(probs) == 3:
            probs[0, :, :3] = 1
        np.savez_compressed(path, probabilities=probs)
        path.with_name(path.name.replace(".npz", ".nii.gz")).unlink()


@pytest.fixture(params=list(LABELS))
def held_out(request, make_validated):
    model = make_validated(labels=LABELS[request.param], cases=1)
    crop(model)
    return HeldOut(find_fold_folders(model.folder))


@pytest.mark.parametrize("identity", [True, False])
def test_a_sample_of_everything_gives_the_values_of_an_evaluation(held_out, identity):
    """Of every mask, in and outside the network's crop; half precision moves a voxel into another bin now and then."""
    regions, (case,) = held_out.first.labels.regions, held_out.files
    calibration = LogOddsMap.identity(2, regions) if identity else conditional(regions)
    mapped = replace(held_out.first, calibration=calibration)
    expected = case_values(evaluate_case(mapped, mapped.files(case), held_out.settings).bins)
    sample = held_out.sample(case)
    assert (sample.weights == 1).all()
    assert case_values(count_sample(sample, calibration)) == pytest.approx(expected, abs=3e-3, nan_ok=True)
    if identity:
        assert case_values(count_sample(sample)) == pytest.approx(expected, abs=3e-3, nan_ok=True)


def test_sums_of_many_samples_are_on_average_those_of_all_voxels(held_out):
    regions, (case,) = held_out.first.labels.regions, held_out.files
    whole, calibration = read_held_out(held_out, case), conditional(regions)
    every = count_sample(draw_sample(whole), calibration)
    draws = [count_sample(draw_sample(whole, seed=seed, limit_bytes=2500), calibration) for seed in range(60)]
    for mask, stats in every.items():
        for name in ("confidence", "count", "class_positive", "nll", "brier"):
            drawn = np.array([getattr(draw[mask], name).sum(-1) for draw in draws])
            error = np.abs(drawn.mean(0) - getattr(stats, name).sum(-1))
            assert (error <= 4.5 * drawn.std(0) / np.sqrt(60) + 1e-6 * error.max() + 1e-9).all(), (mask, name)
