"""Values from samples against the metrics of the package."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.estimates import estimate_values
from nnunet_nacl.calibration.sampling import draw_sample
from nnunet_nacl.cases.heldout import HeldOut, case_values
from nnunet_nacl.cases.locate import find_fold_folders
from nnunet_nacl.documents.map_file import structures_of
from tests.calibration.problems import read_held_out
from tests.cases.folders import CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE

LABELS = {
    "classes": CLASSES,
    "classes_ignore": CLASSES_WITH_IGNORE,
    "regions": REGIONS,
    "regions_ignore": REGIONS_WITH_IGNORE,
}


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
    calibration = AffineMap([1, 1], [0, 0], regions) if identity else AffineMap([0.6, 1.3], [-0.4, 0.7], regions)
    cases = list(held_out.files)
    expected = case_values(held_out.evaluate(dict.fromkeys(cases, calibration), tmp_path), cases)
    order = held_out.first.dataset_json.get("regions_class_order")
    for i, case in enumerate(cases):
        found = estimate_values(held_out.sample(case), calibration, list(structures_of(held_out.first.labels)), order)
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
    read, calibration = read_held_out(held_out, case), AffineMap([0.6, 1.3], [-0.4, 0.7])
    keys, whole = list(structures_of(held_out.first.labels)), draw_sample(read)
    exact, present = estimate_values(whole, calibration, keys), whole.drawn_of[:, 1].sum()
    assert len(whole.target) == present
    each = 2 * len(whole.log_odds) + read.target.itemsize + 2
    limit, draws = int(share * present) * each, 200
    samples = (draw_sample(read, seed=seed, limit_bytes=limit) for seed in range(draws))
    found = [estimate_values(sample, calibration, keys) for sample in samples]
    for name in ("NLL all", "NLL foreground", "Brier union", "ECE all", "Dice 1", "Dice 2"):
        values, errors = np.array([one[name] for one in found]).T
        assert values.mean() == pytest.approx(exact[name][0], abs=4 * values.std() / np.sqrt(draws)), name
        assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.25), name


def test_of_a_change_only_what_changes_is_left_to_chance(make_validated):
    model = make_validated(cases=1, shape=(10, 40, 40))
    held_out = HeldOut(find_fold_folders(model.folder))
    (case,) = held_out.files
    read, keys = read_held_out(held_out, case), list(structures_of(held_out.first.labels))
    before = {
        name: value for name, (value, _) in estimate_values(draw_sample(read), AffineMap.identity(2), keys).items()
    }
    small, temperature = draw_sample(read, limit_bytes=12_000), AffineMap([0.6, 0.6], [0, 0])
    found, alone = (estimate_values(small, temperature, keys, before=known) for known in (before, None))
    assert found["Dice 1"] == pytest.approx((before["Dice 1"], 0), abs=1e-12)  # no temperature changes an argmax
    assert found["NLL all"][1] < alone["NLL all"][1]
    assert found["NLL all"][0] == pytest.approx(
        estimate_values(draw_sample(read), temperature, keys)["NLL all"][0], abs=4 * found["NLL all"][1]
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
