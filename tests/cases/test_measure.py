"""What is measured of a case: against slow loops, closed forms, the same files in other forms, and
in any blocks."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from nnunet_nacl.calibration.log_odds_map import map_from_tables
from nnunet_nacl.cases.case import Case, Labels
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.measure import measure
from nnunet_nacl.cases.probabilities import CaseProbabilities
from nnunet_nacl.cases.record import scores
from nnunet_nacl.cases.views import PROBABILITIES, Views
from nnunet_nacl.metrics.calibration_error import ece, mask_metrics
from nnunet_nacl.metrics.counting import count_masks
from nnunet_nacl.quality.recall import THRESHOLDS, sensitive_labels
from tests.nnunet.measuring import measured
from tests.reference.metrics import boundary, class_metrics, dilated, region_metrics
from tests.runs.folders import (
    CLASSES_WITH_IGNORE,
    REGIONS,
    read,
    write_image,
    write_json,
    write_prediction,
)
from tests.runs.predictions import SPACING_MM


def slow_case(model, name, labels):
    """Everything of one case, without the package."""
    probs = np.load(model.validation() / f"{name}.npz")["probabilities"]
    truth = read(model.references / f"{name}.nii.gz").astype(int)
    valid = truth != labels.get("ignore", -1)
    truth = np.where(valid, truth, 0)
    regions = [value for value in labels.values() if isinstance(value, list)]
    if regions:
        inside = np.stack([(truth == 1) | (truth == 2), truth == 2])
        foreground, predicted = inside.any(0), (probs > 0.5).any(0)
    else:
        foreground, predicted = truth > 0, probs.argmax(0) > 0
    masks = {
        "foreground": foreground,
        "union": foreground | predicted,
        "predicted": predicted,
        "all": valid,
        "dilated": dilated(truth, 2.0, SPACING_MM),
        "near": dilated(predicted, 2.0, SPACING_MM),
    }
    if valid.all():
        masks["boundary"] = boundary(truth, 2.0, SPACING_MM)
    function, target = (region_metrics, inside) if regions else (class_metrics, truth)
    return {mask: function(probs, target, where & valid) for mask, where in masks.items()}


def test_agrees_with_slow_loops_over_voxels(make_validated, labels):
    model = make_validated(labels=labels, cases=2, shape=(5, 9, 8))
    found = measured(model.validation())
    assert list(found) == ["case_00", "case_01"]
    for name, record in found.items():
        for mask, expected in slow_case(model, name, labels).items():
            actual = mask_metrics(record.bins[mask])
            assert actual.keys() == {"n_voxels", *expected}  # a new metric has its slow version
            for metric, value in expected.items():
                assert actual[metric] == pytest.approx(value, abs=1e-9, nan_ok=True), (mask, metric)


def test_confidence_is_that_of_the_segmentation_in_the_file(make_validated):
    model = make_validated(labels=CLASSES_WITH_IGNORE, cases=1, sharpness=1.5)
    folder = model.validation()
    before = measured(folder)["case_00"]
    truth, segmentation = (read(path / "case_00.nii.gz") for path in (model.references, folder))
    probs = np.load(folder / "case_00.npz")["probabilities"]
    segmentation[segmentation == 2] = 1  # as a postprocessing may
    write_image(segmentation, folder / "case_00.nii.gz", SPACING_MM)
    after = measured(folder)["case_00"]
    expected = count_masks(probs, truth, segmentation=segmentation, ignore_label=3)
    for mask in ("all", "predicted", "foreground", "union"):
        assert ece(after.bins[mask]) == pytest.approx(ece(expected[mask]), abs=1e-9)
    assert after.scan["n_changed_voxels"] > before.scan["n_changed_voxels"] == 0


def test_quality_leaves_ignored_voxels_out(make_validated):
    model = make_validated(labels=CLASSES_WITH_IGNORE, cases=1, sharpness=1.5)
    [record] = measured(model.validation()).values()
    truth, segmentation = (
        read(path / "case_00.nii.gz") for path in (model.references, model.validation())
    )
    probs, valid = (
        np.load(model.validation() / "case_00.npz")["probabilities"].astype(float),
        truth != 3,
    )
    for k in (1, 2):
        p, s, row = probs[k][valid], (segmentation == k)[valid], record.structures.loc[str(k)]
        best = np.sort(p)[::-1]  # the best set of voxels is the first of these
        assert row.predicted_dice == pytest.approx(2 * p[s].sum() / (p.sum() + s.sum()))
        volumes = [row.predicted_volume, row.network_volume, row.volume, row.true_volume]
        in_ml = [n / 1000 for n in (p.sum(), p.sum(), s.sum(), (truth == k).sum())]  # 1 mm3 a voxel
        assert volumes == pytest.approx(in_ml)
        dice = (2 * best.cumsum() / (best.sum() + np.arange(1, best.size + 1))).max()
        assert (row.max_probability, row.network_dice) == pytest.approx((p.max(), dice), rel=1e-3)
        assert row.true_pieces == ndimage.label(truth == k, np.ones((3, 3, 3)))[1]
    predicted = (segmentation > 0) & valid
    p, label = probs[:, predicted], segmentation[predicted]
    entropy = -(p * np.log(p)).sum(0).mean() / math.log(3)
    assert record.scan["entropy"] == pytest.approx(entropy, rel=1e-5)
    assert record.scan["confidence"] == pytest.approx(p[label, range(len(label))].mean(), rel=1e-5)
    assert (record.scan["unit"], record.scan["voxel_volume"]) == ("ml", pytest.approx(0.001))


def test_two_voxels_in_closed_form(predict, tmp_path):
    # p_1 = 0.6 and 0.4, 1 is true in the first only; E = 2 * 0.6 / (1 + 1) = 0.6; 2 is in neither,
    # but a third voxel, which is ignored, is full of it
    folder, voxel_ml = predict(labels=CLASSES_WITH_IGNORE, cases=0), np.prod(SPACING_MM) / 1000
    probs = np.array([[0.4, 0.6, 0.0], [0.6, 0.4, 0.0], [0.0, 0.0, 1.0]], dtype=np.float32).reshape(
        3, 1, 1, 3
    )
    write_prediction(folder, "case", probs, np.array([[[1, 0, 2]]], dtype=np.uint8), SPACING_MM)
    (tmp_path / "labels").mkdir()
    write_image(
        np.array([[[1, 0, 3]]], dtype=np.uint8), tmp_path / "labels" / "case.nii.gz", SPACING_MM
    )

    def under(offset: float):
        [record] = measured(
            folder, tmp_path / "labels", calibration=map_from_tables([1, 1], [offset, 0])
        ).values()
        return record.structures[["predicted_dice", "Dice", "predicted_volume", "true_volume"]].T

    found = under(0)
    assert list(found["1"]) == pytest.approx([0.6, 1, voxel_ml, voxel_ml])
    assert list(found["2"]) == pytest.approx([math.nan, math.nan, 0, 0], abs=1e-9, nan_ok=True)
    p = np.array([6 / 7, 8 / 11])  # odds times 4
    # of the chosen label
    assert under(math.log(4))["1"].predicted_dice == pytest.approx(2 * p[0] / (p.sum() + 1))


@pytest.mark.parametrize(
    ("ending", "reader", "shape"),
    [
        (".nrrd", "SimpleITKIO", (6, 8, 7)),
        (".mha", "SimpleITKIO", (6, 8, 7)),
        (".nii.gz", "NibabelIO", (6, 8, 7)),
        (".nii.gz", "NibabelIOWithReorient", (6, 8, 7)),
        (".png", "NaturalImage2DIO", (1, 20, 18)),
        (".tif", "Tiff3DIO", (6, 8, 7)),
    ],
)
def test_every_reader_of_nnunet(make_validated, ending, reader, shape):
    model = make_validated(
        cases=1, file_ending=ending, reader=reader, shape=shape, spacing_mm=(1.0, 1.0, 1.0)
    )
    # nnU-Net saves probabilities in the order in which its reader gives the axes
    if reader == "NibabelIOWithReorient":
        npz = model.validation() / "case_00.npz"
        np.savez_compressed(npz, probabilities=np.load(npz)["probabilities"][:, :, ::-1, ::-1])
    [record] = measured(model.validation()).values()
    assert record.structures.Dice.mean() > 0.6
    assert record.scan["n_changed_voxels"] == 0  # the probabilities lie where the segmentation lies
    assert 0 < record.bins["dilated"].n_voxels <= record.bins["all"].n_voxels == np.prod(shape)


SAVED = {  # as another program might have saved the same probabilities
    "beside another array": lambda probs: {
        "a": np.zeros(3),
        "probabilities": probs,
        "z": np.array([{}], dtype=object),
    },
    "big double": lambda probs: {"probabilities": probs.astype(">f8")},
    "Fortran order": lambda probs: {"probabilities": np.asfortranarray(probs)},
    "half": lambda probs: {"probabilities": probs.astype("f2")},
}


@pytest.mark.parametrize("how", SAVED)
def test_the_same_probabilities_saved_differently(make_validated, how):
    model = make_validated(cases=1)
    before = scores(measured(model.validation(), keep=False).values())
    path = model.validation() / "case_00.npz"
    np.savez(path, **SAVED[how](np.load(path)["probabilities"]))
    after = scores(measured(model.validation(), keep=False).values())
    np.testing.assert_allclose(after, before, atol=2e-2 if how == "half" else 1e-7)


def test_large_labels_are_kept(make_validated):
    model = make_validated(cases=1, labels=REGIONS)
    [expected] = measured(model.validation(), keep=False).values()
    dataset = json.loads((model.folder / "dataset.json").read_text())
    dataset |= {
        "labels": {"background": 0, "whole": [1, 40_000], "core": 40_000},
        "regions_class_order": [1, 40_000],
    }
    write_json(model.folder / "dataset.json", dataset)
    for folder in (model.references, model.validation()):
        array = read(folder / "case_00.nii.gz").astype(np.int32)
        write_image(np.where(array == 2, 40_000, array), folder / "case_00.nii.gz", SPACING_MM)
    [record] = measured(model.validation(), keep=False).values()
    assert (
        list(record.structures.Dice) == list(expected.structures.Dice)
        and record.structures.Dice.min() > 0.5
    )
    assert record.scan["n_changed_voxels"] == 0 and scores([record]).equals(scores([expected]))


CROP = (slice(1, 11), slice(2, 13), slice(0, 9))
SHAPE = (12, 13, 10)
MAPS = ("confidence", "entropy", PROBABILITIES)


class Blocks(CaseProbabilities):
    """Probabilities inside a crop, in blocks of a size."""

    def __init__(self, probs: np.ndarray, regions: bool, block_bytes: int) -> None:
        self.probs, self.regions, self.block_bytes = probs, regions, block_bytes
        self.shape, self.num_channels = probs.shape[1:], len(probs)

    crop = property(lambda self: CROP)

    def in_box(self, where):
        return self.probs[(slice(None), *where)]


def make_case(regions: bool, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    num, size = 3, tuple(part.stop - part.start for part in CROP)
    probs = np.zeros((num, *SHAPE), np.float32)
    probs[0] = not regions
    inside = (
        rng.random((num, *size))
        if regions
        else rng.dirichlet([3, 1, 1], size).transpose(3, 0, 1, 2)
    )
    probs[(slice(None), *CROP)] = inside
    values = ((1, 2), (2,), (3,)) if regions else (0, 1, 2)
    labels = Labels(
        ("a", "b/c", "d"), values, regions, None, (0, 1, 2, 3)[: 4 if regions else 3], (1, 2, 3)
    )
    segmentation = np.zeros(SHAPE, np.uint8)
    segmentation[CROP] = rng.choice(
        len(labels.all_values), size, p=[0.7, 0.1, 0.1, 0.1] if regions else [0.8, 0.1, 0.1]
    )
    geometry = Geometry((3.0, 2.0, 1.0), np.diag([1.0, 2.0, 3.0, 1.0]))
    return Case("case", labels, geometry, segmentation, Blocks(probs, regions, 1 << 30))


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("calibrated", [False, True])
def test_blocks_make_no_difference(regions, calibrated) -> None:
    case = make_case(regions)
    probs, num = case.probabilities.probs, 3 if regions else 2
    calibration = map_from_tables(np.full((1, num), 0.7), np.full((1, num), 0.2), regions)
    made = []
    for block_bytes in (1 << 30, 3000, 1):
        source = Blocks(probs, regions, block_bytes)
        assert len(list(source.boxes(CROP))) == {1 << 30: 1, 3000: 5, 1: 10}[block_bytes]
        views = Views.of(case, MAPS, [float(THRESHOLDS[130])] * num)
        of_case = replace(case, probabilities=source), calibration if calibrated else None
        made.append((views, measure(*of_case, views, findings=case.labels.foreground)))
    (first, expected), *others = made
    assert list(first.images)[2:] == ["probability_0_a", "probability_1_b-c", "probability_2_d"]
    of_network = probs, case.labels.channels_of(case.segmentation), first.limits, regions
    np.testing.assert_array_equal(first.sensitive, sensitive_labels(*of_network))
    if calibrated:
        rows = expected.structures
        assert rows.network_volume.iloc[0] != pytest.approx(rows.predicted_volume.iloc[0], rel=0.01)
    for views, record in others:
        assert views.place == first.place
        np.testing.assert_array_equal(views.sensitive, first.sensitive)
        for name, values in first.images.items():
            np.testing.assert_allclose(views.images[name], values, rtol=1e-6, atol=1e-6)
        assert record.scan | {"unit": 0} == pytest.approx(expected.scan | {"unit": 0}, nan_ok=True)
        pd.testing.assert_frame_equal(record.structures, expected.structures, rtol=1e-6)
        for found, same in zip(record.findings, expected.findings):
            assert len(found.found) == len(same.found) > 0
            assert found.found[0].mean_probability == pytest.approx(same.found[0].mean_probability)


def test_a_large_case_is_never_whole_in_memory() -> None:
    """Calibrated and measured, in a small share of the memory that its probabilities take."""
    probs = np.random.default_rng(0).random((16, 96, 96, 96), np.float32)
    probs /= probs.sum(0)
    case = make_case(False)
    labels = Labels(tuple(map(str, range(16))), tuple(range(16)), False, None, tuple(range(16)))
    source = type(
        "Whole", (Blocks,), {"crop": property(lambda self: tuple(slice(0, 96) for _ in range(3)))}
    )
    calibration = map_from_tables(np.full((1, 15), 0.7), np.zeros((1, 15)))
    case = replace(
        case,
        labels=labels,
        segmentation=probs.argmax(0).astype(np.uint8),
        probabilities=source(probs, False, 1 << 20),
    )
    tracemalloc.start()
    try:
        measure(case, calibration)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < probs.nbytes / 2
