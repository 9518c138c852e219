"""The fast counting against loops over voxels, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_nacl.json_files import encode
from nnunet_nacl.numbers import BinStats, ace, brier, cece, count_masks, ece, mce, nll
from tests.reference.metrics import class_metrics, region_metrics


def all_metrics(stats: BinStats) -> dict[str, float]:
    return {
        "ECE": ece(stats),
        "CECE_sum": cece(stats, reduction="sum"),
        "CECE_mean": cece(stats),
        "ACE": ace(stats),
        "MCE": mce(stats),
        "NLL": nll(stats),
        "Brier": brier(stats),
    }


def random_classes(seed: int, classes: int, shape: tuple[int, ...], sharpness: float, dtype=np.float32):
    """Probabilities with many nearly certain background voxels, some exact zeros and ones, and truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, shape) * (rng.random(shape) < 0.3)
    one_hot = np.arange(classes).reshape(-1, *[1] * len(shape)) == truth
    logits = rng.normal(size=(classes, *shape)) + sharpness * one_hot
    probs = np.exp(logits - logits.max(0))
    probs /= probs.sum(0)
    certain = rng.random(shape) < 0.1
    probs = np.where(certain, np.arange(classes).reshape(-1, *[1] * len(shape)) == probs.argmax(0), probs)
    return probs.astype(dtype), truth


def close(actual: dict[str, float], expected: dict[str, float], tolerance: float = 1e-12) -> None:
    for key, value in expected.items():
        assert actual[key] == pytest.approx(value, abs=tolerance, rel=tolerance, nan_ok=True), key


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(2, 6),
    sharpness=st.sampled_from([0.0, 3.0, 8.0, 20.0]),
    n_bins=st.sampled_from([1, 2, 3, 10, 15, 20]),
    shape=st.sampled_from([(7,), (5, 6), (3, 4, 5), (1, 8, 8)]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_classes_agree_with_loops_over_voxels(seed, classes, sharpness, n_bins, shape, dtype):
    probs, truth = random_classes(seed, classes, shape, sharpness, dtype)
    rng = np.random.default_rng(seed + 1)
    extra, valid = rng.random(shape) < 0.4, rng.random(shape) < 0.8
    stats = count_masks(probs, truth, extra_masks={"extra": extra}, valid=valid, n_bins=n_bins)
    predicted = probs.argmax(0) != 0
    masks = {
        "all": valid,
        "foreground": (truth != 0) & valid,
        "predicted": predicted & valid,
        "union": ((truth != 0) | predicted) & valid,
        "extra": extra & valid,
    }
    assert set(stats) == set(masks)
    for name, mask in masks.items():
        assert stats[name].n_voxels == mask.sum()
        close(all_metrics(stats[name]), class_metrics(probs, truth, mask, n_bins))


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    regions=st.integers(1, 4),
    spread=st.sampled_from([1.0, 4.0, 30.0]),
    n_bins=st.sampled_from([1, 2, 3, 10, 15]),
)
def test_regions_agree_with_loops_over_voxels(seed, regions, spread, n_bins):
    rng = np.random.default_rng(seed)
    shape = (3, 5, 4)
    inside = rng.random((regions, *shape)) < 0.2
    probs = (1 / (1 + np.exp(-rng.normal(-1, 1, (regions, *shape)) * spread))).astype(np.float32)
    valid = rng.random(shape) < 0.8
    stats = count_masks(probs, inside, valid=valid, regions=True, n_bins=n_bins)
    predicted = (probs > 0.5).any(0)
    for name, mask in {
        "all": valid,
        "foreground": inside.any(0) & valid,
        "predicted": predicted & valid,
        "union": (inside.any(0) | predicted) & valid,
    }.items():
        close(all_metrics(stats[name]), region_metrics(probs, inside, mask, n_bins))


@pytest.mark.parametrize("regions", [False, True])
def test_order_chunks_and_merging_do_not_matter(regions, monkeypatch):
    probs, truth = random_classes(3, 4, (20, 20, 20), 6.0)
    if regions:
        truth = np.stack([truth > 0, truth > 1, truth > 2, truth == 2])
    whole = count_masks(probs, truth, regions=regions)
    order = np.random.default_rng(0).permutation(8000)
    flat_probs, flat_truth = probs.reshape(4, -1)[:, order], truth.reshape(-1 if not regions else 4, *[-1] * regions)
    flat_truth = flat_truth[..., order]
    monkeypatch.setattr("nnunet_nacl.numbers.counting._CPU_PROBABILITIES", 4096)
    pieces = [
        count_masks(flat_probs[:, part], flat_truth[..., part], regions=regions)
        for part in np.array_split(np.arange(8000), 7)
    ]
    for name, stats in whole.items():
        merged = BinStats.merge(reversed([piece[name] for piece in pieces]))
        for field in ("count", "correct", "class_count", "class_positive"):
            assert (getattr(merged, field) == getattr(stats, field)).all(), field
        for field in ("confidence", "class_confidence", "nll", "brier"):
            np.testing.assert_allclose(getattr(merged, field), getattr(stats, field), rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("regions", [False, True])
def test_large_cases_are_as_exact_as_small_ones(regions, monkeypatch):
    probs, truth = random_classes(3, 4, (40, 60, 70), 7.0)
    if regions:
        truth = np.stack([truth > 0, truth > 1, truth > 2, truth == 2])
    small = count_masks(probs, truth, regions=regions)
    monkeypatch.setattr("nnunet_nacl.numbers.counting.EXACT_BELOW", 0)
    large = count_masks(probs, truth, regions=regions)
    for name, stats in small.items():
        # the errors of single precision have random signs: at 4 million voxels a fifth of this remains
        close(all_metrics(large[name]), all_metrics(stats), 5e-9)
        assert nll(large[name]) == pytest.approx(nll(stats), rel=1e-14)


@pytest.mark.parametrize("regions", [False, True])
def test_few_plain_voxels_of_a_large_case_are_summed_exactly(regions, monkeypatch):
    rng = np.random.default_rng(0)
    inside = (0.9 + 0.0999 * rng.random(1 << 18)).astype(np.float32)
    plain = rng.choice(len(inside), 10, replace=False)
    truth = np.ones(len(inside), dtype=np.uint8)
    inside[plain], truth[plain] = 1 - inside[plain], 0
    probs = inside[None] if regions else np.stack([1 - inside, inside])
    truth = truth[None] if regions else truth
    small = count_masks(probs, truth, regions=regions)["all"]
    monkeypatch.setattr("nnunet_nacl.numbers.counting.EXACT_BELOW", 0)
    large = count_masks(probs, truth, regions=regions)["all"]
    # ten probabilities below 0.1 beside a quarter of a million near 1, whose sum in float32 is wrong by about 1e-4
    np.testing.assert_allclose(large.class_confidence, small.class_confidence, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_takes_any_floating_type(dtype):
    probs = torch.tensor([[1.0, 0.75, 0.25], [0.0, 0.25, 0.75]], dtype=dtype)
    stats = count_masks(probs, torch.tensor([0, 1, 1]))["all"]
    assert stats.n_voxels == 3 and stats.correct.sum() == 2 and ece(stats) == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.uint32, torch.int16, torch.float16, torch.bfloat16, torch.float64]
)
def test_takes_labels_of_any_type(dtype):
    probs, truth = random_classes(3, 4, (20, 30), 4.0)
    expected = all_metrics(count_masks(probs, truth)["foreground"])
    close(all_metrics(count_masks(probs, torch.as_tensor(truth).to(dtype))["foreground"]), expected)


class OnAppleGPU(torch.Tensor):
    """Stands for a tensor on a device that has no double precision: all that can be done is to copy it from there."""

    device = torch.device("mps")

    def detach(self):
        return self

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        assert function is torch.Tensor.as_subclass or function.__name__ == "__get__", f"{function} on the device"
        return super().__torch_function__(function, types, args, kwargs)


def test_a_device_without_double_precision_is_left():
    probs, truth = random_classes(5, 3, (20, 30), 4.0)
    stats = count_masks(torch.as_tensor(probs).as_subclass(OnAppleGPU), truth)
    assert encode(stats["all"]) == encode(count_masks(probs, truth)["all"])


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.001, 1.5])
def test_one_value_that_is_no_probability_is_found(value, regions):
    probs, truth = random_classes(4, 3, (20, 30), 4.0)
    truth = np.stack([truth > 0, truth > 1, truth == 2]) if regions else truth
    for channel in range(3):
        wrong = probs.copy()
        wrong[channel, 7, 8] = value
        with pytest.raises(ValueError, match="the probabilities"):
            count_masks(wrong, truth, regions=regions)


def test_views_and_tensors_with_gradients_are_taken_and_left_as_they_are():
    probs, truth = random_classes(5, 3, (20, 30), 4.0)
    expected = all_metrics(count_masks(probs, truth)["all"])
    wide = torch.zeros(3, 40, 30)
    wide[:, ::2] = torch.as_tensor(probs)
    last = torch.as_tensor(probs).movedim(0, -1).contiguous().movedim(-1, 0)
    for view in (wide[:, ::2], last, torch.as_tensor(probs.copy()).requires_grad_()):
        close(all_metrics(count_masks(view, truth)["all"]), expected)
        assert np.array_equal(view.detach().numpy(), probs)


def test_bin_edges_belong_to_the_lower_bin():
    probs = np.array([[0.0, 0.5, 1.0, 0.5 + 2**-20], [1.0, 0.5, 0.0, 0.5 - 2**-20]], dtype=np.float32)
    stats = count_masks(probs, np.zeros(4, dtype=int), n_bins=2)["all"]
    assert stats.class_count[0].tolist() == [2, 2] and stats.class_count[1].tolist() == [3, 1]


def test_ties_go_to_the_lower_class():
    stats = count_masks(np.full((2, 1), 0.5, dtype=np.float32), np.array([1]))
    assert stats["predicted"].n_voxels == 0 and stats["all"].correct.sum() == 0


def test_exact_past_the_limit_of_float32_counters():
    voxels = 2**25 + 3
    probs = torch.empty(2, voxels)
    probs[0], probs[1] = 0.3, 0.7
    truth = torch.ones(1, dtype=torch.uint8).expand(voxels)
    stats = count_masks(probs, truth)["all"]
    assert stats.n_voxels == voxels
    assert ece(stats) == pytest.approx(1 - np.float32(0.7), abs=1e-12)
    merged = BinStats.merge([stats] * 200)
    assert merged.n_voxels == 200 * voxels and ece(merged) == pytest.approx(1 - np.float32(0.7), abs=1e-9)


def test_empty_masks_and_empty_images_give_nan():
    stats = count_masks(np.array([[1.0], [0.0]], dtype=np.float32), np.array([0]))
    assert stats["foreground"].n_voxels == 0
    assert all(np.isnan(value) for value in all_metrics(stats["foreground"]).values())
    nothing = count_masks(np.ones((2, 0), np.float32), np.ones(0, int))["all"]
    assert all(np.isnan(value) for value in all_metrics(nothing).values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(probs=np.full((2, 4), 0.2, np.float32)), "sum to 0.4"),
        (dict(probs=np.ones((1, 4), np.float32)), "regions=True"),
        (dict(probs=np.ones((2, 4), int)), "floating point"),
        (dict(truth=np.array([0, 1, 2, 0])), r"label\(s\) 2"),
        (dict(truth=np.array([0, 1, 0.5, 0])), "0.5"),
        (dict(truth=np.array([0, 1, 0])), r"\(4,\), got \(3,\)"),
        (dict(valid=np.ones(3, bool)), "valid must"),
        (dict(extra_masks={"x": np.ones(3, bool)}), "mask 'x'"),
        (dict(extra_masks={"all": np.ones(4, bool)}), "built in"),
        (dict(extra_masks={str(i): np.ones(4, bool) for i in range(6)}), "At most 5"),
        (dict(n_bins=0), "n_bins"),
        (dict(regions=True), "shape of probs"),
        (dict(regions=True, ignore_label=3), "ignore_label"),
        (dict(truth="abc"), "truth must be"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = dict(probs=np.array([[0.5] * 4, [0.5] * 4], np.float32), truth=np.array([0, 1, 1, 0])) | change
    with pytest.raises(ValueError, match=message):
        count_masks(arguments.pop("probs"), arguments.pop("truth"), **arguments)


def test_ignore_label_leaves_voxels_out():
    probs, truth = random_classes(1, 3, (4, 5, 6), 3.0)
    truth[0] = 3
    ignored = count_masks(probs, truth, ignore_label=3)
    without = count_masks(probs[:, 1:], truth[1:])
    for name in without:
        close(all_metrics(ignored[name]), all_metrics(without[name]))
