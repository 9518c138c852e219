"""Samples: what is drawn, their size, how well a fit to them does, and records under a map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.cases.measure import under
from nnunet_nacl.cases.probabilities import SavedProbabilities
from nnunet_nacl.cases.record import scores
from nnunet_nacl.cases.sample import Sample, draw_sample, most_bytes, pack
from nnunet_nacl.estimators.fitting import case_loss, fit_conditional, fit_temperature
from nnunet_nacl.estimators.log_odds import probabilities
from nnunet_nacl.estimators.log_odds_map import LogOddsMap, map_from_tables
from nnunet_nacl.estimators.voxels import Voxels
from nnunet_nacl.metrics.distance_masks import dilated_mask
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from tests.estimators.problems import chosen, drawn_from, identity
from tests.nnunet.measuring import measured
from tests.runs.folders import write_image, write_prediction
from tests.runs.predictions import SPACING_MM


def draw(voxels: Voxels, **options) -> Sample:
    probs = probabilities(voxels.log_odds.double(), voxels.regions).numpy()
    target = voxels.target.numpy()
    if voxels.regions:
        codes = pack(target.astype(bool), len(target))
    else:
        codes = target.astype(np.uint8)
    return draw_sample(SavedProbabilities(probs, voxels.regions), codes, **options)


def test_a_rare_label_is_drawn_whole_however_certain_the_network_was():
    odds = np.full((2, 50_000), -9.0)
    odds[1, 7:50_000:2000] = 9  # as certain of the second structure as of the background elsewhere
    target = np.where(odds[1] > 0, 2, 0)
    target[:3] = 1  # three errors
    odds = torch.from_numpy(odds.astype(np.float32))
    sample = draw(Voxels(odds, chosen(odds, False), torch.from_numpy(target)), limit_bytes=20_000)
    is_rare = (sample.label == 2) | (sample.target == 1)
    assert (sample.weights[is_rare] == 1).all()
    assert (sample.label == 2).sum() == 25
    assert (sample.target == 1).sum() == 3
    assert sample.weights[sample.label == 0].sum() == pytest.approx(49_975)


@pytest.mark.parametrize("channels", [2, 20])
def test_records_keep_to_their_size(make_validated, channels):
    labels = {"background": 0, **{f"s{i}": i for i in range(1, channels)}}
    model = make_validated(labels=labels, cases=1, shape=(2, 2, 2))
    rng = np.random.default_rng(0)
    shape = (40, 50, 50)
    channels_last = rng.dirichlet(np.full(channels, 0.3), shape).astype(np.float32)
    probs = np.moveaxis(channels_last, -1, 0)
    segmentation = probs.argmax(0).astype(np.uint8)
    write_prediction(model.validation(), "case_00", probs, segmentation, (1.0, 1.0, 1.0))
    truth = rng.integers(0, channels, shape).astype(np.uint8)
    write_image(truth, model.references / "case_00.nii.gz", (1.0, 1.0, 1.0))
    [record] = measured(model.validation(), with_sample=True).values()
    size = (model.validation() / "records" / "case_00.npz").stat().st_size
    assert most_bytes(channels) / 4 < size <= min(60_000 * channels, 800_000) + 16_384
    assert record.sample.weights.sum() == pytest.approx(truth.size)


@pytest.mark.parametrize("form, kilobytes", [("temperature", 20), ("conditional", 140)])
def test_a_fit_to_samples_does_as_well_as_that_to_all_voxels(form, kilobytes):
    rng = np.random.default_rng(5)  # cases differ, as patients do
    slopes = rng.normal(0.6, 0.1, 12)
    offsets = rng.normal([0.5, -1], 0.3, (12, 2))
    cases = []
    for seed, (slope, offset) in enumerate(zip(slopes, offsets)):
        miscalibration = map_from_tables([slope, slope], offset)
        cases += drawn_from(miscalibration, cases=1, voxels=20_000, seed=seed)
    samples = [draw(voxels, limit_bytes=1000 * kilobytes).voxels() for voxels in cases]

    def fit(voxels: list[Voxels]) -> LogOddsMap:
        if form == "temperature":
            return fit_temperature(voxels)
        return fit_conditional(voxels, identity(2), 1e-4)

    def loss_under(calibration: LogOddsMap) -> float:
        return float(np.mean([case_loss(case, calibration) for case in cases]))

    before = loss_under(identity(2))
    best = loss_under(fit(cases))
    with_samples = loss_under(fit(samples))
    assert best <= with_samples <= best + 0.01 * (before - best)


def test_a_case_that_the_network_never_saw_is_refused(make_validated):
    model = make_validated(cases=2)
    path = model.validation() / "case_00.npz"
    probs = np.load(path)["probabilities"] * 0
    probs[0] = 1
    np.savez_compressed(path, probabilities=probs)
    found = measured(model.validation(), with_sample=True)
    reason = found["case_00"].reason
    assert f"{path}: nothing but certain background" in reason
    assert "leave this case out" in reason
    assert found["case_01"].sample is not None


def conditional(regions: bool) -> LogOddsMap:
    """A map that differs by label, and would choose other labels in places."""
    slopes = [[0.6, 1.3], [0.9, 0.4], [0.5, 1.1]]
    offsets = [[-0.4, 0.7], [-0.9, 0.2], [0.3, -1.0]]
    if regions:
        return map_from_tables(slopes[1:], offsets[1:], True)
    return map_from_tables(slopes, offsets)


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
    """Of every mask, in and outside the network's crop.

    Half precision moves a voxel into another bin now and then.
    """
    regions = folder.labels.regions
    calibration = identity(2, regions) if is_identity else conditional(regions)
    record = record_of(folder)
    expected = record_of(folder, calibration)
    assert (record.sample.weights == 1).all()
    found = under(record, calibration)
    np.testing.assert_allclose(scores([found]), scores([expected]), atol=3e-3)
    estimated = ["predicted_dice", "predicted_volume"]
    np.testing.assert_allclose(
        found.structures[estimated], expected.structures[estimated], atol=2e-3
    )
    others = [name for name in record.structures if name not in (*estimated, "max_probability")]
    assert found.structures[others].equals(expected.structures[others])
    for name in ("entropy", "confidence"):
        assert found.scan[name] == pytest.approx(expected.scan[name], abs=2e-3)


def sampler_of(folder: PredictionFolder) -> Callable[..., Sample]:
    """What draws samples of the folder's one case."""
    case = folder.case("case_00")
    truth = case.prepare_truth(EvaluationSettings())
    if folder.labels.regions:
        target = pack((folder.labels.mask(truth.label_map, channel) for channel in (0, 1)), 2)
    else:
        target = truth.label_map.astype(np.uint8)
    return partial(
        draw_sample,
        case.probabilities,
        target,
        valid=truth.valid,
        around=truth.around,
        near=lambda predicted: dilated_mask(predicted, 2.0, case.spacing_mm),
    )


def assert_unbiased(values: np.ndarray, exact: np.ndarray, *what) -> None:
    """``values`` are draws by row."""
    error = np.abs(values.mean(0) - exact)
    standard_error = values.std(0) / np.sqrt(len(values))
    assert (error <= 4.5 * standard_error + 1e-6 * error.max() + 1e-9).all(), what


def test_samples_are_unbiased(folder):
    record = record_of(folder)
    calibration = conditional(folder.labels.regions)
    draw_voxels = sampler_of(folder)
    all_voxels = draw_voxels()
    exact = under(replace(record, sample=all_voxels), calibration)
    draws = []
    for seed in range(60):
        sample = draw_voxels(seed=seed, limit_bytes=2000)
        assert len(sample.label) < len(all_voxels.label) / 2
        draws.append(under(replace(record, sample=sample), calibration))
    for mask, stats in exact.bins.items():
        for name in ("confidence", "count", "class_positive", "nll", "brier"):
            sums = np.array([getattr(draw.bins[mask], name).sum(-1) for draw in draws])
            assert_unbiased(sums, getattr(stats, name).sum(-1), mask, name)
    volumes = np.array([draw.structures.predicted_volume for draw in draws])
    assert_unbiased(volumes, exact.structures.predicted_volume.to_numpy(), "predicted volume")
    dice = np.array([draw.structures.predicted_dice for draw in draws])  # a ratio: nearly unbiased
    assert (np.abs(dice.mean(0) - exact.structures.predicted_dice) < 2 * dice.std(0)).all()


def test_of_the_network_itself_a_record_knows_the_sums_of_the_whole_case(folder):
    """Only what a map changes has the noise of a sample."""
    record = record_of(folder)
    draw_voxels = sampler_of(folder)
    for seed in range(5):
        sample = draw_voxels(seed=seed, limit_bytes=2000)
        same = under(replace(record, sample=sample), identity(2, folder.labels.regions))
        np.testing.assert_allclose(
            same.structures.predicted_dice, record.structures.predicted_dice, atol=1e-6
        )


def test_a_record_without_a_sample_cannot_be_calibrated(make_validated):
    [record] = measured(make_validated(cases=1).validation()).values()
    with pytest.raises(ValueError, match="case_00: its record has no sample"):
        under(record, conditional(False))
