"""Samples: unbiased, small, kept under a name that nnU-Net does not take for a prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.case_voxels import HeldOutCase, pack, unpack
from nnunet_nacl.calibration.fitting import fit
from nnunet_nacl.calibration.likelihood import Voxels, case_terms
from nnunet_nacl.calibration.sampling import draw_sample, most_bytes
from nnunet_nacl.cases.sample_files import read_sample, write_sample
from nnunet_nacl.errors import UserError
from tests.calibration.problems import drawn_from

NOWHERE = np.zeros((0, 3), dtype=np.int64)


def draw(voxels, **options):
    n, truth = voxels.log_odds.shape[1], voxels.target.numpy()
    target = pack(truth.astype(bool), len(truth)) if voxels.regions else truth.astype(np.uint8)
    blocks = voxels.log_odds.split(1000, 1)  # as a case comes that is too large for memory
    case = HeldOutCase(target, np.zeros(n, np.uint8), NOWHERE, voxels.regions, lambda: iter(blocks))
    return draw_sample(case, **options)


@pytest.mark.parametrize("regions", [False, True])
def test_the_loss_of_many_samples_is_on_average_that_of_all_voxels(regions):
    (voxels,) = drawn_from(AffineMap([1.5, 1.5], [0, 0], regions), cases=1, voxels=5000)
    at = np.array([0.8, 0.9, 0.1, -0.2])
    expected = case_terms(voxels, at).loss
    losses = [case_terms(draw(voxels, seed=s, limit_bytes=2500).voxels(), at).loss for s in range(200)]
    assert len(draw(voxels, limit_bytes=2500).stratum) < 450
    assert np.mean(losses) == pytest.approx(expected, abs=4 * np.std(losses) / np.sqrt(200) + 1e-4)


def test_weights_add_up_and_uncertain_voxels_are_drawn_densely():
    rng = np.random.default_rng(0)
    odds = np.concatenate([rng.normal(-12, 1, 95_000), rng.normal(0, 1, 1000)])[None]
    sample = draw(Voxels(torch.from_numpy(odds), torch.zeros(odds.shape[1], dtype=int)), limit_bytes=20_000)
    assert sample.weights.sum() == pytest.approx(odds.shape[1])
    uncertain = np.abs(sample.log_odds[0].astype(float)) < 2
    assert sample.weights[uncertain].max() == 1 and sample.weights[~uncertain].max() > 20


@pytest.mark.parametrize("channels", [2, 5, 20])
def test_files_keep_to_their_size_and_their_name(tmp_path, channels):
    rng = np.random.default_rng(0)
    odds = torch.from_numpy(rng.normal(size=(channels - 1, 200_000)).astype(np.float32) * 3)
    sample = draw(Voxels(odds, torch.from_numpy(rng.integers(0, channels, 200_000))))
    path = tmp_path / "samples" / "case.sample"
    write_sample(sample, path)
    assert path.stat().st_size <= min(60_000 * channels, 800_000)
    assert most_bytes(channels) < min(60_000 * channels, 800_000)
    assert [p.name for p in path.parent.iterdir()] == ["case.sample"]
    back = read_sample(path)
    for name in ("log_odds", "target", "masks", "stratum", "drawn_of"):
        np.testing.assert_array_equal(getattr(back, name), getattr(sample, name))


@pytest.mark.parametrize("num", [1, 8, 9, 40])
def test_regions_fit_into_bits(num):
    inside = np.random.default_rng(0).random((num, 50)) < 0.5
    np.testing.assert_array_equal(unpack(pack(inside, num), num), inside)


def test_a_fit_to_samples_is_that_to_all_voxels_within_its_standard_error():
    rng = np.random.default_rng(5)  # cases differ, as patients do
    made_by = [AffineMap([a, a], b) for a, b in zip(rng.normal(0.6, 0.1, 12), rng.normal([0.5, -1], 0.3, (12, 2)))]
    cases = [drawn_from(one, cases=1, voxels=20_000, seed=i)[0] for i, one in enumerate(made_by)]
    samples = [draw(voxels, limit_bytes=20_000).voxels() for voxels in cases]
    full, sampled = (fit(lambda c=c: c, "shift")[0] for c in (cases, samples))
    assert (np.abs(full.parameters - sampled.parameters) <= full.standard_errors).all()


def test_a_broken_sample_is_named(tmp_path):
    (tmp_path / "case.sample").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(UserError, match=r"case\.sample: not a sample"):
        read_sample(tmp_path / "case.sample")


def test_nothing_is_lost_where_everything_fits():
    (voxels,) = drawn_from(AffineMap([1.0], [0.0]), cases=1, voxels=300)
    sample = draw(voxels)
    assert torch.equal(sample.voxels().target, voxels.target) and (sample.weights == 1).all()
