"""Samples: unbiased, small, kept under a name that nnU-Net does not take for a prediction."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch

from nnunet_nacl.case import sampling
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.case.sampling import draw_sample, most_bytes
from nnunet_nacl.errors import UserError
from nnunet_nacl.numbers.case_voxels import HeldOutCase, Voxels, pack, unpack
from nnunet_nacl.numbers.fitting import case_loss, fit_affine, fit_conditional
from nnunet_nacl.numbers.log_odds_map import LogOddsMap, probabilities
from nnunet_nacl.runs.sample_files import read_sample, write_sample
from tests.numbers.problems import chosen, drawn_from

NOWHERE = np.zeros((0, 3), dtype=np.int64)


def draw(voxels, **options):
    n = voxels.log_odds.shape[1]
    label, target = (
        pack(codes.numpy().astype(bool), len(codes)) if voxels.regions else codes.numpy().astype(np.uint8)
        for codes in (voxels.label, voxels.target)
    )
    blocks = voxels.log_odds.split(1000, 1)  # as a case comes that is too large for memory
    case = HeldOutCase(target, label, np.zeros(n, np.uint8), NOWHERE, voxels.regions, lambda: iter(blocks))
    return draw_sample(case, **options)


def of_classes(odds, target=None):
    """Voxels of (m, n) log-odds, of background if nothing is said."""
    odds = torch.from_numpy(np.asarray(odds, np.float32))
    label = chosen(odds, False)
    return Voxels(odds, label, torch.zeros_like(label) if target is None else torch.from_numpy(target))


def labels_of(channels: int) -> Labels:
    return Labels(tuple(map(str, range(channels))), tuple(range(channels)), False, None, tuple(range(channels)))


def test_a_rare_label_is_drawn_whole_however_certain_the_network_was():
    odds = np.full((2, 50_000), -9.0)
    odds[1, 7:50_000:2000] = 9  # as certain of the second structure as of the background elsewhere
    target = np.where(odds[1] > 0, 2, 0)
    target[:3] = 1  # three errors
    sample = draw(of_classes(odds, target), limit_bytes=20_000)
    for rare in (sample.label == 2, sample.target == 1):
        assert (sample.weights[rare] == 1).all()
    assert (sample.label == 2).sum() == 25 and (sample.target == 1).sum() == 3
    assert sample.weights[sample.label == 0].sum() == pytest.approx(49_975)


@pytest.mark.parametrize("channels", [2, 5, 20])
def test_files_keep_to_their_size_and_their_name(tmp_path, channels):
    rng = np.random.default_rng(0)
    odds = rng.normal(size=(channels - 1, 200_000)) * 3
    sample = draw(of_classes(odds, rng.integers(0, channels, 200_000)))
    path = tmp_path / "samples" / "case.sample"
    write_sample(sample, path)
    assert path.stat().st_size <= min(60_000 * channels, 800_000)
    assert most_bytes(channels) < min(60_000 * channels, 800_000)
    assert [p.name for p in path.parent.iterdir()] == ["case.sample"]
    back = read_sample(path, labels_of(channels))
    assert (back.true_log is None) == (channels < 20) and back.num_structures == channels - 1
    for name in ("log_odds", "target", "label", "masks", "stratum", "drawn_of", "tempered", "true_log"):
        np.testing.assert_array_equal(getattr(back, name), getattr(sample, name))


@pytest.mark.parametrize("num", [1, 8, 9, 40])
def test_regions_fit_into_bits(num):
    inside = np.random.default_rng(0).random((num, 50)) < 0.5
    np.testing.assert_array_equal(unpack(pack(inside, num), num), inside)


@pytest.mark.parametrize("form, kilobytes", [("shift", 20), ("conditional", 140)])
def test_a_fit_to_samples_does_as_well_as_that_to_all_voxels(form, kilobytes):
    rng = np.random.default_rng(5)  # cases differ, as patients do
    made_by = [LogOddsMap([a, a], b) for a, b in zip(rng.normal(0.6, 0.1, 12), rng.normal([0.5, -1], 0.3, (12, 2)))]
    cases = [drawn_from(one, cases=1, voxels=20_000, seed=i)[0] for i, one in enumerate(made_by)]
    samples = [draw(voxels, limit_bytes=1000 * kilobytes).voxels() for voxels in cases]
    plain = LogOddsMap.identity(2)
    full, sampled = (
        fit_affine(c, form) if form == "shift" else fit_conditional(c, plain, 1e-4) for c in (cases, samples)
    )
    before, best, found = (np.mean([case_loss(case, one) for case in cases]) for one in (plain, full, sampled))
    assert best <= found <= best + 0.01 * (before - best)


def with_arrays(**changes):
    """What replaces arrays of a sample's file; None removes one."""

    def damage(path):
        with np.load(path) as data:
            arrays = {**data, **changes}
        with open(path, "wb") as file:
            np.savez_compressed(file, **{name: array for name, array in arrays.items() if array is not None})

    return damage


def huge_header(path):
    header = b"{'descr': '<f2', 'fortran_order': False, 'shape': (2, 10000000000000), }"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[200:300] = bytes(b ^ 255 for b in content[200:300])  # inside the deflated log-odds
    path.write_bytes(content)


def many(seed: int = 0, num: int = 39, voxels: int = 6000):
    """Soft voxels of many classes: most have more than eight above 1e-4."""
    rng = np.random.default_rng(seed)
    odds = np.maximum(rng.normal(-6, 3, (num, voxels)), -9) + 6 * (
        rng.integers(0, num + 1, voxels) == np.arange(1, num + 1)[:, None]
    )
    probs = torch.from_numpy(np.vstack([np.zeros(voxels), 0.7 * odds])).softmax(0).numpy()
    return of_classes(odds, (probs.cumsum(0) < rng.random(voxels)).sum(0))


@pytest.mark.parametrize("map_of", ["affine", "shifted", "conditional"])
def test_bytes_give_the_loss_and_the_sums_of_the_log_odds_themselves(map_of, monkeypatch):
    voxels, rng = many(), np.random.default_rng(1)
    sample = draw(voxels, limit_bytes=10**6)
    monkeypatch.setattr(sampling, "_FINE", 39)
    whole = draw(voxels, limit_bytes=10**6)  # the same voxels, all of them, in half precision
    assert sample.log_odds.dtype == np.uint8 and whole.log_odds.dtype == np.float16
    for slope in (0.5, 0.7, 1, 1.4, 2):
        shifts = rng.uniform(-1, 1, (40, 39)) * (map_of != "affine")
        slopes = np.tile(slope * np.eye(39, 40), (40, 1, 1)) + 0.05 * rng.normal(size=(40, 39, 40)) * (
            rng.random(40) < 0.1
        )
        calibration = (
            LogOddsMap(slopes, shifts) if map_of == "conditional" else LogOddsMap(np.full(39, slope), shifts[0])
        )
        losses, sums = [], []
        for each in (sample.voxels(), whole.voxels()):
            losses.append(case_loss(each, calibration))
            sums.append(calibration.to_probabilities(each.log_odds.double(), each.label) @ each.weights)
        assert losses[0] == pytest.approx(losses[1], abs=2e-4)
        assert torch.allclose(*sums, rtol=0.01, atol=0)


@pytest.mark.parametrize("regions", [False, True])
def test_sums_under_a_temperature_are_much_nearer_than_weighted_ones(regions):
    (voxels,) = drawn_from(LogOddsMap([0.5] * 3, [0] * 3, regions), cases=1, voxels=20_000)
    calibration, foreground = LogOddsMap([0.7] * 3, [0.0] * 3, regions), slice(0 if regions else 1, None)
    inside = voxels.label.bool() if regions else voxels.label == torch.arange(1, 4)[:, None]

    def change(each):
        before = probabilities(each.log_odds.double(), regions)
        return (calibration.to_probabilities(each.log_odds.double(), each.label) - before)[foreground]

    for within in (False, True):
        exact = (change(voxels) * (inside if within else 1)).sum(1).numpy()
        errors = []
        for seed in range(10):
            sample = draw(voxels, seed=seed, limit_bytes=9000)
            each = sample.voxels()
            here = each.label.bool() if regions else each.label == torch.arange(1, 4)[:, None]
            values = change(each) * (here if within else 1)
            errors.append([sample.sums(values, inside=within) - exact, values.numpy() @ sample.weights - exact])
        regression, weighted = np.sqrt(np.mean(np.square(errors), axis=(0, 2)))
        assert regression < 0.2 * weighted


N = np.zeros(50, np.uint8)
DAMAGES = {
    "no archive": lambda path: path.write_bytes(b"PK\x03\x04 broken"),
    "flipped bits": flipped,
    "huge header": huge_header,
    "another version": with_arrays(schema=1),
    "an array is missing": with_arrays(masks=None),
    "other structures": with_arrays(log_odds=np.zeros((1, 50), np.float16)),
    "fewer voxels": with_arrays(target=N[:49]),
    "log-odds are words": with_arrays(log_odds=np.full((2, 50), "x")),
    "log-odds are NaN": with_arrays(log_odds=np.full((2, 50), np.nan, np.float16)),
    "a label that is none": with_arrays(label=N + 3),
    "a stratum that is none": with_arrays(stratum=N.astype(np.uint16) + 999),
    "outside is flat": with_arrays(outside=np.zeros(3, np.int64)),
    "regions": with_arrays(regions=True),
    "codes without the true class": with_arrays(log_odds=np.zeros((3, 50), np.uint8)),
    "a true class that is NaN": with_arrays(
        log_odds=np.zeros((3, 50), np.uint8), true_log=np.full(50, np.nan, np.float16)
    ),
    "half precision beside codes": with_arrays(true_log=np.zeros(50, np.float16)),
    "sums of other structures": with_arrays(tempered=np.zeros((4, 2, 3))),
    "sums are NaN": with_arrays(tempered=np.full((4, 2, 2), np.nan)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_sample_is_named(tmp_path, damage):
    path, rng = tmp_path / "case.sample", np.random.default_rng(0)
    write_sample(draw(of_classes(rng.normal(size=(2, 50)), rng.integers(0, 3, 50))), path)
    read_sample(path, labels_of(3))
    damage(path)
    with pytest.raises(UserError, match=r"case\.sample: not a sample") as caught:
        read_sample(path, labels_of(3))
    assert "\n" not in str(caught.value)
