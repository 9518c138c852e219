"""A record under a map, from its sample, against what all voxels give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.case.case import EvaluationSettings
from nnunet_nacl.case.measure import under
from nnunet_nacl.case.record import scores
from nnunet_nacl.case.sample import draw_sample, pack
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from nnunet_nacl.numbers.overlap import dilated_mask
from tests.nnunet.measuring import measured
from tests.numbers.problems import identity
from tests.runs.folders import write_image
from tests.runs.predictions import SPACING_MM


def conditional(regions: bool) -> LogOddsMap:
    """A map that differs by label, and would choose other labels in places."""
    slopes, offsets = [[0.6, 1.3], [0.9, 0.4], [0.5, 1.1]], [[-0.4, 0.7], [-0.9, 0.2], [0.3, -1.0]]
    return LogOddsMap(slopes[1:], offsets[1:], True) if regions else LogOddsMap(slopes, offsets)


@pytest.fixture
def folder(labels, make_validated) -> PredictionFolder:
    """One case, as if nnU-Net had cropped the first rows away: background for certain there."""
    model = make_validated(labels=labels, cases=1)
    opened = PredictionFolder.open(model.validation())
    for path in model.validation().glob("*.npz"):
        probs = np.load(path)["probabilities"]
        probs[:, :, :3] = 0
        if len(probs) == 3:
            probs[0, :, :3] = 1
        np.savez_compressed(path, probabilities=probs)
        write_image(opened.labels.label_map(probs), path.with_suffix(".nii.gz"), SPACING_MM)
    return opened


def record_of(folder: PredictionFolder, calibration: LogOddsMap | None = None):
    [record] = measured(folder, keep=False, calibration=calibration, with_sample=True).values()
    return record


@pytest.mark.parametrize("is_identity", [True, False])
def test_a_sample_of_all_voxels_gives_what_measuring_gives(folder, is_identity):
    """Of every mask, in and outside the network's crop; half precision moves a voxel into another bin now and then."""
    regions = folder.labels.regions
    calibration = identity(2, regions) if is_identity else conditional(regions)
    record, expected = record_of(folder), record_of(folder, calibration)
    assert (record.sample.weights == 1).all()
    found = under(record, calibration)
    np.testing.assert_allclose(scores([found]), scores([expected]), atol=3e-3)
    estimated = ["predicted_dice", "predicted_volume"]
    np.testing.assert_allclose(found.structures[estimated], expected.structures[estimated], atol=2e-3)
    others = [name for name in record.structures if name not in (*estimated, "max_probability")]
    assert found.structures[others].equals(expected.structures[others])
    for name in ("entropy", "confidence"):
        assert found.scan[name] == pytest.approx(expected.scan[name], abs=2e-3)


def test_samples_are_unbiased_and_know_sums_of_the_whole_case(folder):
    regions, calibration = folder.labels.regions, conditional(folder.labels.regions)
    case, record = folder.case("case_00"), record_of(folder)
    truth = case.read_truth(EvaluationSettings())
    if regions:
        target = pack((folder.labels.mask(truth.labels, channel) for channel in (0, 1)), 2)
    else:
        target = truth.labels.astype(np.uint8)

    def drawn(**options):
        near = lambda predicted: dilated_mask(predicted, 2.0, case.spacing_mm)  # noqa: E731
        sample = draw_sample(case.probabilities, target, valid=truth.valid, around=truth.around, near=near, **options)
        return under(replace(record, sample=sample), calibration)

    every = drawn()
    draws = [drawn(seed=seed, limit_bytes=2000) for seed in range(60)]
    assert len(draws[0].sample.label) < len(every.sample.label) / 2

    def check(values: np.ndarray, exact: np.ndarray, *what) -> None:
        error = np.abs(values.mean(0) - exact)
        assert (error <= 4.5 * values.std(0) / np.sqrt(60) + 1e-6 * error.max() + 1e-9).all(), what

    for mask, stats in every.bins.items():
        for name in ("confidence", "count", "class_positive", "nll", "brier"):
            values = np.array([getattr(draw.bins[mask], name).sum(-1) for draw in draws])
            check(values, getattr(stats, name).sum(-1), mask, name)
    volumes = np.array([draw.structures.predicted_volume for draw in draws])
    check(volumes, every.structures.predicted_volume.to_numpy(), "predicted volume")
    dice = np.array([draw.structures.predicted_dice for draw in draws])  # a ratio: nearly unbiased
    assert (np.abs(dice.mean(0) - every.structures.predicted_dice) < 2 * dice.std(0)).all()
    for draw in draws[:5]:  # the network's own sums are those of the case: only what the map changes has noise
        same = under(replace(record, sample=draw.sample), identity(2, regions))
        np.testing.assert_allclose(same.structures.predicted_dice, record.structures.predicted_dice, atol=1e-6)


def test_a_record_without_a_sample_cannot_be_calibrated(make_validated):
    [record] = measured(make_validated(cases=1).validation()).values()
    with pytest.raises(ValueError, match="case_00: its record has no sample"):
        under(record, conditional(False))
