"""The fast counting against loops over voxels, other libraries and the published code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_nacl.metrics import BinStats, cece, count_masks, ece, mce
from nnunet_nacl.metrics.calibration_error import class_errors, marginal_ace, mask_metrics
from nnunet_nacl.utilities.json_files import encode
from tests.reference.metrics import class_metrics, region_metrics, weighted_gap

DATA = Path(__file__).parents[1] / "data" / "authors_code_outputs.npz"


def random_classes(
    seed: int, classes: int, shape: tuple[int, ...], sharpness: float, dtype=np.float32
):
    """Probabilities with many nearly certain background voxels, some exact zeros and ones, and
    truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, shape) * (rng.random(shape) < 0.3)
    one_hot = np.arange(classes).reshape(-1, *[1] * len(shape)) == truth
    logits = rng.normal(size=(classes, *shape)) + sharpness * one_hot
    probs = np.exp(logits - logits.max(0))
    probs /= probs.sum(0)
    certain = rng.random(shape) < 0.1
    probs = np.where(
        certain, np.arange(classes).reshape(-1, *[1] * len(shape)) == probs.argmax(0), probs
    )
    return probs.astype(dtype), truth


def nested(truth: np.ndarray) -> np.ndarray:
    """Four regions of a label map, some inside others."""
    return np.stack([truth > 0, truth > 1, truth > 2, truth == 2])


def close(
    actual: BinStats, expected: BinStats | dict[str, float], tolerance: float = 1e-12
) -> None:
    actual = mask_metrics(actual)
    for key, value in (expected if isinstance(expected, dict) else mask_metrics(expected)).items():
        if key == "root_Brier":  # near 0 as inexact as the root of what the sums lose
            actual[key], value = actual[key] ** 2, value**2
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
    foreground, predicted = truth != 0, probs.argmax(0) != 0
    inside = {
        "foreground": foreground,
        "predicted": predicted,
        "union": foreground | predicted,
        "extra": extra,
    }
    assert set(stats) == {"all", *inside}
    for name, mask in {"all": valid, **inside}.items():
        assert stats[name].n_voxels == (mask & valid).sum()
        close(stats[name], class_metrics(probs, truth, mask & valid, n_bins))


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
    foreground, predicted = inside.any(0), (probs > 0.5).any(0)
    masks = {
        "all": valid,
        "foreground": foreground,
        "predicted": predicted,
        "union": foreground | predicted,
    }
    for name, mask in masks.items():
        close(stats[name], region_metrics(probs, inside, mask & valid, n_bins))


@pytest.mark.parametrize("plain", [0.0, 0.9], ids=["no plain background", "much plain background"])
def test_the_confidence_is_that_of_the_labels_that_are_delivered(plain):
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(4) / 2, (20, 30)).transpose(2, 0, 1)
    truth, labels = rng.integers(0, 4, (2, 20, 30))
    sure = rng.random((20, 30)) < plain
    probs[:, sure] = np.array([0.9997, 1e-4, 1e-4, 1e-4])[:, None]
    truth[sure] = 0
    # in some places a label stands where the network is sure of none
    labels[sure & (rng.random((20, 30)) < 0.9)] = 0
    found = count_masks(probs, truth, segmentation=labels)
    masks = {
        "all": truth >= 0,
        "foreground": truth > 0,
        "predicted": labels > 0,
        "union": (truth > 0) | (labels > 0),
    }
    confidence = np.take_along_axis(probs, labels[None], 0)[0]
    for name, where in masks.items():
        expected = weighted_gap(confidence[where], (labels == truth)[where])
        assert (
            ece(found[name]) == pytest.approx(expected, abs=1e-6)
            and found[name].n_voxels == where.sum()
        ), name
    # a voxel that is delivered outside a region of probability .8 is sure by .2
    probs, labels = np.array([[0.8, 0.8], [0.1, 0.6]]), np.array([[1, 0], [0, 1]])
    regions = count_masks(probs, labels, segmentation=labels, regions=True)["all"]
    assert (
        regions.confidence.sum() == pytest.approx(0.8 + 0.2 + 0.9 + 0.6)
        and regions.correct.sum() == 4
    )


@pytest.mark.parametrize("mask", ["foreground", "all"])
def test_authors_evaluation(mask):
    data = np.load(DATA)
    probs, labels = (
        torch.softmax(torch.as_tensor(data["eval_logits"]), 1).transpose(0, 1),
        data["eval_labels"],
    )
    stats = count_masks(probs, labels)[mask]
    assert ece(stats) == pytest.approx(float(data[f"eval/ece_{mask}"]), abs=1e-6)
    classes = int(labels.max()) + 1
    assert class_errors(stats)[:classes].mean() == pytest.approx(
        float(data[f"eval/cece_{mask}"]), abs=1e-6
    )


@pytest.mark.parametrize("sharpness", [0.0, 8.0])
def test_torchmetrics(sharpness):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    probs, truth = random_classes(2, 5, (12, 13, 14), sharpness)
    probs = probs * 0.98 + 0.004  # torchmetrics gives p = 1 a bin of its own: stay off the edges
    flat, labels = torch.as_tensor(probs.reshape(5, -1).T), torch.as_tensor(truth.ravel())
    stats = count_masks(probs, truth)["all"]
    for norm, metric in (("l1", ece), ("max", mce)):
        expected = functional.multiclass_calibration_error(flat, labels, 5, n_bins=15, norm=norm)
        assert metric(stats) == pytest.approx(float(expected), abs=1e-6)
    errors = []
    # its binary error takes the probability as the confidence and the label as the outcome
    for k in range(5):
        errors.append(
            float(
                functional.binary_calibration_error(flat[:, k], labels == k, n_bins=15, norm="l1")
            )
        )
    assert class_errors(stats).sum() == pytest.approx(sum(errors), abs=1e-6)


@pytest.mark.parametrize("regions", [False, True])
def test_monai(regions):
    monai_metrics = pytest.importorskip("monai.metrics")
    probs, truth = random_classes(4, 4, (9, 8, 7), 3.0)
    outcomes = nested(truth) if regions else np.arange(4).reshape(-1, 1, 1, 1) == truth
    stats = count_masks(probs, nested(truth) if regions else truth, regions=regions, n_bins=20)[
        "all"
    ]
    for reduction, ours in (("average", marginal_ace), ("expected", cece)):
        theirs = monai_metrics.CalibrationErrorMetric(num_bins=20, calibration_reduction=reduction)
        theirs(y_pred=torch.as_tensor(probs)[None], y=torch.as_tensor(outcomes)[None].float())
        assert ours(stats) == pytest.approx(float(theirs.aggregate()), abs=1e-6)


@pytest.mark.parametrize("regions", [False, True])
def test_order_chunks_and_merging_do_not_matter(regions):
    probs, truth = random_classes(3, 4, (70, 70, 70), 6.0)  # more than a chunk
    truth = nested(truth) if regions else truth
    whole = count_masks(probs, truth, regions=regions)
    order = np.random.default_rng(0).permutation(truth[0].size if regions else truth.size)
    flat_probs, flat_truth = (x.reshape(*x.shape[:-3], -1)[..., order] for x in (probs, truth))
    pieces = [
        count_masks(flat_probs[:, part], flat_truth[..., part], regions=regions)
        for part in np.array_split(np.arange(len(order)), 7)
    ]
    for name, stats in whole.items():
        merged = BinStats.merge(reversed([piece[name] for piece in pieces]))
        for field in ("count", "correct", "class_count", "class_positive"):
            assert (getattr(merged, field) == getattr(stats, field)).all(), field
        for field in ("confidence", "class_confidence", "nll", "brier"):
            np.testing.assert_allclose(
                getattr(merged, field), getattr(stats, field), rtol=1e-11, atol=1e-10
            )


FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", [*FLOATING, torch.uint8, torch.uint16, torch.uint32, torch.int16])
def test_takes_labels_of_any_type_and_probabilities_of_any_floating_type(dtype):
    probs = torch.tensor([[1.0, 0.75, 0.25], [0.0, 0.25, 0.75]]).to(
        dtype if dtype in FLOATING else torch.float32
    )
    stats = count_masks(probs, torch.tensor([0, 1, 1]).to(dtype))["all"]
    assert stats.n_voxels == 3 and stats.correct.sum() == 2 and ece(stats) == pytest.approx(1 / 6)


def test_weights_that_sum_to_a_number_of_voxels_count_as_that_many():
    weights = np.full((1, 12), 100 / 12)
    assert weights.sum() < 100  # by rounding
    assert replace(BinStats.zeros(2, n_bins=12), count=weights).n_voxels == 100


def test_a_device_without_double_precision_is_left():
    probs, truth = random_classes(5, 3, (20, 30), 4.0)

    class OnAppleGPU(torch.Tensor):
        device = torch.device("mps")

        def cpu(self):
            return torch.as_tensor(probs)

    stats = count_masks(torch.zeros(probs.shape).as_subclass(OnAppleGPU), truth)
    assert encode(stats["all"]) == encode(count_masks(probs, truth)["all"])


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.001, 1.5])
def test_one_value_that_is_no_probability_is_found(value, regions):
    probs, truth = random_classes(4, 4, (20, 30), 4.0)
    for channel in range(4):
        wrong = probs.copy()
        wrong[channel, 7, 8] = value
        with pytest.raises(ValueError, match="the probabilities"):
            count_masks(wrong, nested(truth) if regions else truth, regions=regions)


def test_views_and_tensors_with_gradients_are_taken_and_left_as_they_are():
    probs, truth = random_classes(5, 3, (20, 30), 4.0)
    expected = count_masks(probs, truth)["all"]
    wide = torch.zeros(3, 40, 30)
    wide[:, ::2] = torch.as_tensor(probs)
    last = torch.as_tensor(probs).movedim(0, -1).contiguous().movedim(-1, 0)
    for view in (wide[:, ::2], last, torch.as_tensor(probs.copy()).requires_grad_()):
        close(count_masks(view, truth)["all"], expected)
        assert np.array_equal(view.detach().numpy(), probs)


def test_bin_edges_belong_to_the_lower_bin_and_ties_to_the_lower_class():
    probs = np.array(
        [[0.0, 0.5, 1.0, 0.5 + 2**-20], [1.0, 0.5, 0.0, 0.5 - 2**-20]], dtype=np.float32
    )
    stats = count_masks(probs, np.zeros(4, dtype=int), n_bins=2)["all"]
    assert stats.class_count[0].tolist() == [2, 2] and stats.class_count[1].tolist() == [3, 1]
    stats = count_masks(np.full((2, 1), 0.5, dtype=np.float32), np.array([1]))
    assert stats["predicted"].n_voxels == 0 and stats["all"].correct.sum() == 0


def test_exact_past_the_limit_of_float32_counters():
    voxels = 2**25 + 3
    probs = torch.empty(2, voxels)
    probs[0], probs[1] = 0.3, 0.7
    stats = count_masks(probs, torch.ones(1, dtype=torch.uint8).expand(voxels))["all"]
    assert stats.n_voxels == voxels and ece(stats) == pytest.approx(1 - np.float32(0.7), abs=1e-12)
    merged = BinStats.merge([stats] * 200)
    assert merged.n_voxels == 200 * voxels and ece(merged) == pytest.approx(
        1 - np.float32(0.7), abs=1e-9
    )


def test_empty_masks_and_empty_images_give_nan():
    stats = count_masks(np.array([[1.0], [0.0]], dtype=np.float32), np.array([0]))["foreground"]
    for nothing in (stats, count_masks(np.ones((2, 0), np.float32), np.ones(0, int))["all"]):
        n_voxels, *values = mask_metrics(nothing).values()
        assert n_voxels == 0 and np.isnan(values).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(probs=np.full((2, 4), 0.2, np.float32)), "sum to 0.4"),
        (dict(probs=np.ones((2, 4), int)), "floating point"),
        (
            dict(truth=np.array([0, 1, 7, 0])),
            r"truth holds label\(s\) 7, but the probs have classes 0 to 1",
        ),
        (
            dict(segmentation=np.array([0, 1, 7, 0])),
            r"segmentation holds label\(s\) 7, but the probs",
        ),
        (dict(truth=np.array([0, 1, 0])), r"\(4,\), got \(3,\)"),
        (dict(extra_masks={"all": np.ones(4, bool)}), "built in"),
        (dict(extra_masks={str(i): np.ones(4, bool) for i in range(6)}), "At most 5"),
        (dict(regions=True, ignore_label=3), "ignore_label"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = (
        dict(probs=np.array([[0.5] * 4, [0.5] * 4], np.float32), truth=np.array([0, 1, 1, 0]))
        | change
    )
    with pytest.raises(ValueError, match=message):
        count_masks(arguments.pop("probs"), arguments.pop("truth"), **arguments)


@pytest.mark.parametrize("name", ["probs", "truth", "segmentation", "valid", "weights"])
def test_a_masked_array_is_refused_since_its_mask_would_be_lost(name):
    arguments = {
        "probs": np.full((2, 4), 0.5, np.float32),
        "truth": np.array([0, 1, 1, 0]),
        "segmentation": np.array([0, 1, 1, 0]),
        "valid": np.ones(4, bool),
        "weights": np.ones(4),
    }
    mask = np.zeros(arguments[name].shape, bool)
    mask[..., 1] = True
    arguments[name] = np.ma.masked_array(arguments[name], mask)
    with pytest.raises(ValueError, match=f"{name}: a masked array has masked voxels"):
        count_masks(**arguments)
