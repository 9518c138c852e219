"""Samples: what is drawn, how large its file is, and how well a fit to it does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_nacl.case.probabilities import SavedProbabilities
from nnunet_nacl.case.sample import Sample, draw_sample, most_bytes, pack
from nnunet_nacl.numbers.fitting import Voxels, case_loss, fit_affine, fit_conditional
from nnunet_nacl.numbers.log_odds_map import LogOddsMap, probabilities
from tests.nnunet.measuring import measured
from tests.numbers.problems import chosen, drawn_from, identity
from tests.runs.folders import write_image, write_prediction


def draw(voxels: Voxels, **options) -> Sample:
    probs = probabilities(voxels.log_odds.double(), voxels.regions).numpy()
    target = voxels.target.numpy()
    codes = pack(target.astype(bool), len(target)) if voxels.regions else target.astype(np.uint8)
    return draw_sample(SavedProbabilities(probs, voxels.regions), codes, **options)


def of_classes(odds, target) -> Voxels:
    odds = torch.from_numpy(np.asarray(odds, np.float32))
    return Voxels(odds, chosen(odds, False), torch.from_numpy(target))


def test_a_rare_label_is_drawn_whole_however_certain_the_network_was():
    odds = np.full((2, 50_000), -9.0)
    odds[1, 7:50_000:2000] = 9  # as certain of the second structure as of the background elsewhere
    target = np.where(odds[1] > 0, 2, 0)
    target[:3] = 1  # three errors
    sample = draw(of_classes(odds, target), limit_bytes=20_000)
    for is_rare in (sample.label == 2, sample.target == 1):
        assert (sample.weights[is_rare] == 1).all()
    assert (sample.label == 2).sum() == 25 and (sample.target == 1).sum() == 3
    assert sample.weights[sample.label == 0].sum() == pytest.approx(49_975)


@pytest.mark.parametrize("channels", [2, 20])
def test_records_keep_to_their_size(make_validated, channels):
    labels = {"background": 0, **{f"s{i}": i for i in range(1, channels)}}
    model = make_validated(labels=labels, cases=1, shape=(2, 2, 2))
    rng, shape = np.random.default_rng(0), (40, 50, 50)
    probs = rng.dirichlet(np.full(channels, 0.3), shape).transpose(3, 0, 1, 2).astype(np.float32)
    write_prediction(model.validation(), "case_00", probs, probs.argmax(0).astype(np.uint8), (1.0, 1.0, 1.0))
    truth = rng.integers(0, channels, shape).astype(np.uint8)
    write_image(truth, model.references / "case_00.nii.gz", (1.0, 1.0, 1.0))
    [record] = measured(model.validation(), with_sample=True).values()
    size = (model.validation() / "records" / "case_00.npz").stat().st_size
    assert most_bytes(channels) / 4 < size <= min(60_000 * channels, 800_000) + 16_384
    assert record.sample.weights.sum() == pytest.approx(truth.size)


@pytest.mark.parametrize("form, kilobytes", [("shift", 20), ("conditional", 140)])
def test_a_fit_to_samples_does_as_well_as_that_to_all_voxels(form, kilobytes):
    rng = np.random.default_rng(5)  # cases differ, as patients do
    made_by = [LogOddsMap([a, a], b) for a, b in zip(rng.normal(0.6, 0.1, 12), rng.normal([0.5, -1], 0.3, (12, 2)))]
    cases = [drawn_from(calibration, cases=1, voxels=20_000, seed=i)[0] for i, calibration in enumerate(made_by)]
    samples = [draw(voxels, limit_bytes=1000 * kilobytes).voxels() for voxels in cases]
    plain = identity(2)
    full, sampled = (
        fit_affine(c, form) if form == "shift" else fit_conditional(c, plain, 1e-4) for c in (cases, samples)
    )
    before, best, found = (np.mean([case_loss(case, by) for case in cases]) for by in (plain, full, sampled))
    assert best <= found <= best + 0.01 * (before - best)


def test_a_case_that_the_network_never_saw_is_refused(make_validated):
    model = make_validated(cases=2)
    path = model.validation() / "case_00.npz"
    probs = np.load(path)["probabilities"] * 0
    probs[0] = 1
    np.savez_compressed(path, probabilities=probs)
    found = measured(model.validation(), with_sample=True)
    assert f"{path}: nothing but certain background" in found["case_00"] and "leave this case out" in found["case_00"]
    assert found["case_01"].sample is not None
