"""Values from samples against the metrics of the package."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.case_voxels import HeldOutCase
from nnunet_nacl.calibration.estimates import estimate_values
from nnunet_nacl.calibration.sampling import draw_sample
from nnunet_nacl.cases.heldout import HeldOut, case_values
from nnunet_nacl.cases.locate import find_fold_folders
from nnunet_nacl.cases.treatment import Treatment
from tests.calibration.problems import read_held_out
from tests.cases.folders import CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE

LABELS = {
    "classes": CLASSES,
    "classes_ignore": CLASSES_WITH_IGNORE,
    "regions": REGIONS,
    "regions_ignore": REGIONS_WITH_IGNORE,
}


def conditional(regions: bool) -> CalibrationMap:
    """A map that differs by label, and would choose other labels in places."""
    slopes, offsets = [[0.6, 1.3], [0.9, 0.4], [0.5, 1.1]], [[-0.4, 0.7], [-0.9, 0.2], [0.3, -1.0]]
    return CalibrationMap(slopes[1:], offsets[1:], True) if regions else CalibrationMap(slopes, offsets)


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
    model = make_validated(labels=LABELS[request.param], cases=2)
    crop(model)
    return HeldOut(find_fold_folders(model.folder))


@pytest.mark.parametrize("identity", [True, False])
def test_a_sample_of_everything_gives_the_values_of_an_evaluation(held_out, identity, tmp_path):
    regions = held_out.first.labels.regions
    calibration = CalibrationMap.identity(2, regions) if identity else conditional(regions)
    cases = list(held_out.files)
    expected = case_values(held_out.evaluate(dict.fromkeys(cases, Treatment(calibration)), tmp_path), cases)
    for i, case in enumerate(cases):
        found = estimate_values(held_out.sample(case), calibration)
        for name, values in expected.items():
            value, error = found[name]
            assert error == pytest.approx(0, abs=1e-12)
            # samples hold half precision: a voxel at the edge of a bin may change it
            assert value == pytest.approx(values[i], abs=3e-3), name


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_standard_errors_are_the_spread_of_estimates_over_draws(make_validated, share):
    model = make_validated(cases=1, shape=(10, 40, 40))
    held_out = HeldOut(find_fold_folders(model.folder))
    (case,) = held_out.files
    read, calibration = read_held_out(held_out, case), conditional(False)
    whole = draw_sample(read)
    exact, present = estimate_values(whole, calibration), whole.drawn_of[:, 1].sum()
    assert len(whole.target) == present
    each = 2 * len(whole.log_odds) + 2 * read.target.itemsize + 3
    limit, draws = int(share * present) * each, 200
    samples = (draw_sample(read, seed=seed, limit_bytes=limit) for seed in range(draws))
    found = [estimate_values(sample, calibration) for sample in samples]
    for name in ("NLL all", "NLL foreground", "Brier union", "ECE all", "ECE predicted"):
        values, errors = np.array([one[name] for one in found]).T
        assert values.mean() == pytest.approx(exact[name][0], abs=4 * values.std() / np.sqrt(draws) + 1e-12), name
        assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.25, abs=1e-12), name


def test_of_a_change_only_what_changes_is_left_to_chance(make_validated):
    model = make_validated(cases=1, shape=(10, 40, 40))
    held_out = HeldOut(find_fold_folders(model.folder))
    (case,) = held_out.files
    read = read_held_out(held_out, case)
    identity, temperature = CalibrationMap.identity(2), CalibrationMap([0.6, 0.6], [0, 0])
    before = {name: value for name, (value, _) in estimate_values(draw_sample(read), identity).items()}
    small = draw_sample(read, limit_bytes=14_000)
    nothing = estimate_values(small, identity, before=before)  # no log-odds are beyond the clipping
    assert all(found == pytest.approx((before[name], 0), abs=1e-6) for name, found in nothing.items())
    found, alone = (estimate_values(small, temperature, before=known) for known in (before, None))
    assert found["NLL all"][1] < alone["NLL all"][1]
    assert found["NLL all"][0] == pytest.approx(
        estimate_values(draw_sample(read), temperature)["NLL all"][0], abs=4 * found["NLL all"][1]
    )


def test_what_lies_outside_the_crop_is_background_for_certain_and_counts():
    # one voxel inside, p = 1/2 and wrong; outside 3 of background and 1 of a structure that the network never saw
    odds = torch.zeros((1, 1))
    outside = np.array([[0, 0, 3], [1, 0b00011, 1]], np.int64)
    arrays = np.array([1], np.uint8), np.array([0], np.uint8), np.array([0b00011], np.uint8)
    case = HeldOutCase(*arrays, outside, False, lambda: iter([odds]))
    found = {name: value for name, (value, _) in estimate_values(draw_sample(case), CalibrationMap.identity(1)).items()}
    # confidences 1/2, 1 (four times), of which three are right
    assert found["ECE all"] == pytest.approx((0.5 + 1) / 5)
    assert found["Brier all"] == pytest.approx((0.5 + 2) / 5) and found["Brier foreground"] == pytest.approx(2.5 / 2)
    assert np.isnan(found["ECE predicted"]) and found["NLL foreground"] == pytest.approx(
        (np.log(2) + 126 * np.log(2)) / 2
    )


def test_samples_of_other_files_are_not_used(held_out):
    case, files = next(iter(held_out.files.items()))
    first = held_out.sample(case)
    assert held_out.sample(case).signature == first.signature
    probs = np.load(files.probabilities)["probabilities"]
    np.savez_compressed(files.probabilities, probabilities=probs[:, ::-1])
    assert held_out.sample(case).signature != first.signature
    files.probabilities.unlink()
    assert held_out.sample(case).signature != first.signature  # the last one drawn stands in
    held_out.settings = replace(held_out.settings, dilation_mm=9.0)
    with pytest.raises(ValueError, match="is gone, and there is no sample of these files and settings"):
        held_out.sample(case)
