"""What is measured of a case: by slow loops, closed forms, files in other forms, any blocks."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from nnunet_nacl.cases.case import Case, Labels
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.measure import measure
from nnunet_nacl.cases.probabilities import CaseProbabilities
from nnunet_nacl.cases.record import CaseRecord, scores
from nnunet_nacl.cases.views import PROBABILITIES, VoxelUncertainty
from nnunet_nacl.estimators.log_odds_map import map_from_tables
from nnunet_nacl.estimators.recall import THRESHOLDS, sensitive_labels
from nnunet_nacl.metrics.calibration_error import ece, mask_metrics
from nnunet_nacl.metrics.counting import count_masks
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
        target = np.stack([(truth == 1) | (truth == 2), truth == 2])
        foreground = target.any(0)
        predicted = (probs > 0.5).any(0)
        slow_metrics = region_metrics
    else:
        target = truth
        foreground = truth > 0
        predicted = probs.argmax(0) > 0
        slow_metrics = class_metrics
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
    return {mask: slow_metrics(probs, target, where & valid) for mask, where in masks.items()}


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
    truth = read(model.references / "case_00.nii.gz")
    segmentation = read(folder / "case_00.nii.gz")
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
    truth = read(model.references / "case_00.nii.gz")
    segmentation = read(model.validation() / "case_00.nii.gz")
    probs = np.load(model.validation() / "case_00.npz")["probabilities"].astype(float)
    valid = truth != 3
    assert record.scan["unit"] == "ml"
    voxel_ml = record.scan["voxel_volume"]
    assert voxel_ml == pytest.approx(0.001)
    for label in (1, 2):
        row = record.structures.loc[str(label)]
        p = probs[label][valid]
        is_found = (segmentation == label)[valid]
        assert row.predicted_dice == pytest.approx(
            2 * p[is_found].sum() / (p.sum() + is_found.sum())
        )
        assert row.predicted_volume == pytest.approx(p.sum() * voxel_ml)
        assert row.network_volume == pytest.approx(p.sum() * voxel_ml)
        assert row.volume == pytest.approx(is_found.sum() * voxel_ml)
        assert row.true_volume == pytest.approx((truth == label).sum() * voxel_ml)
        likeliest_first = np.sort(p)[::-1]  # the best set of voxels is the first of these
        num_voxels = np.arange(1, p.size + 1)
        dice = 2 * likeliest_first.cumsum() / (p.sum() + num_voxels)
        assert row.network_dice == pytest.approx(dice.max(), rel=1e-3)
        assert row.max_probability == pytest.approx(p.max(), rel=1e-3)
        assert row.true_pieces == ndimage.label(truth == label, np.ones((3, 3, 3)))[1]
    is_predicted = (segmentation > 0) & valid
    p = probs[:, is_predicted]
    chosen = segmentation[is_predicted]
    entropy = -(p * np.log(p)).sum(0).mean() / math.log(3)
    confidence = p[chosen, range(len(chosen))].mean()
    assert record.scan["entropy"] == pytest.approx(entropy, rel=1e-5)
    assert record.scan["confidence"] == pytest.approx(confidence, rel=1e-5)


def test_two_voxels_in_closed_form(predict, tmp_path):
    # p_1 = 0.6 and 0.4, 1 is true in the first only; E = 2 * 0.6 / (1 + 1) = 0.6; 2 is in neither,
    # but a third voxel, which is ignored, is full of it
    folder = predict(labels=CLASSES_WITH_IGNORE, cases=0)
    probs = np.array([[0.4, 0.6, 0.0], [0.6, 0.4, 0.0], [0.0, 0.0, 1.0]], dtype=np.float32)
    segmentation = np.array([[[1, 0, 2]]], dtype=np.uint8)
    truth = np.array([[[1, 0, 3]]], dtype=np.uint8)
    write_prediction(folder, "case", probs.reshape(3, 1, 1, 3), segmentation, SPACING_MM)
    references = tmp_path / "labels"
    references.mkdir()
    write_image(truth, references / "case.nii.gz", SPACING_MM)

    def structures_under(offset: float) -> pd.DataFrame:
        calibration = map_from_tables([1, 1], [offset, 0])
        [record] = measured(folder, references, calibration=calibration).values()
        return record.structures[["predicted_dice", "Dice", "predicted_volume", "true_volume"]].T

    structures = structures_under(0)
    voxel_ml = np.prod(SPACING_MM) / 1000
    assert list(structures["1"]) == pytest.approx([0.6, 1, voxel_ml, voxel_ml])
    absent = [math.nan, math.nan, 0, 0]
    assert list(structures["2"]) == pytest.approx(absent, abs=1e-9, nan_ok=True)
    p = np.array([6 / 7, 8 / 11])  # of the chosen label: odds times 4
    calibrated = structures_under(math.log(4))
    assert calibrated["1"].predicted_dice == pytest.approx(2 * p[0] / (p.sum() + 1))


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
    assert list(record.structures.Dice) == list(expected.structures.Dice)
    assert record.structures.Dice.min() > 0.5
    assert record.scan["n_changed_voxels"] == 0
    assert scores([record]).equals(scores([expected]))


CROP = (slice(1, 11), slice(2, 13), slice(0, 9))
SHAPE = (12, 13, 10)
MAPS = ("confidence", "entropy", PROBABILITIES)


class Blocks(CaseProbabilities):
    """Probabilities inside a crop, in blocks of a size."""

    def __init__(self, probs: np.ndarray, regions: bool, block_bytes: int) -> None:
        self.probs = probs
        self.regions = regions
        self.block_bytes = block_bytes
        self.num_channels = len(probs)
        self.shape = probs.shape[1:]

    crop = property(lambda self: CROP)

    def in_box(self, where):
        return self.probs[(slice(None), *where)]


NAMES = ("a", "b/c", "d")
CLASSES = Labels(NAMES, (0, 1, 2), False, None, (0, 1, 2))
REGIONS_OF_LABELS = Labels(NAMES, ((1, 2), (2,), (3,)), True, None, (0, 1, 2, 3), (1, 2, 3))


def make_case(regions: bool, seed: int = 0) -> Case:
    """Random probabilities, and a segmentation that has nothing to do with them."""
    rng = np.random.default_rng(seed)
    size = tuple(part.stop - part.start for part in CROP)
    probs = np.zeros((3, *SHAPE), np.float32)
    if regions:
        labels = REGIONS_OF_LABELS
        shares_of_labels = [0.7, 0.1, 0.1, 0.1]
        probs[(slice(None), *CROP)] = rng.random((3, *size))
    else:
        labels = CLASSES
        shares_of_labels = [0.8, 0.1, 0.1]
        probs[0] = 1  # outside the crop
        probs[(slice(None), *CROP)] = np.moveaxis(rng.dirichlet([3, 1, 1], size), -1, 0)
    segmentation = np.zeros(SHAPE, np.uint8)
    segmentation[CROP] = rng.choice(len(labels.all_values), size, p=shares_of_labels)
    geometry = Geometry((3.0, 2.0, 1.0), np.diag([1.0, 2.0, 3.0, 1.0]))
    return Case("case", labels, geometry, segmentation, Blocks(probs, regions, 1 << 30))


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("calibrated", [False, True])
def test_blocks_make_no_difference(regions, calibrated) -> None:
    case = make_case(regions)
    probs = case.probabilities.probs
    num_structures = len(case.labels.foreground)
    calibration = None
    if calibrated:
        slopes = np.full((1, num_structures), 0.7)
        offsets = np.full((1, num_structures), 0.2)
        calibration = map_from_tables(slopes, offsets, regions)

    def measure_in_blocks(
        block_bytes: int, num_blocks: int
    ) -> tuple[VoxelUncertainty, dict, CaseRecord]:
        source = Blocks(probs, regions, block_bytes)
        assert len(list(source.boxes(CROP))) == num_blocks
        uncertainty = VoxelUncertainty.of(case, MAPS, [float(THRESHOLDS[130])] * num_structures)
        in_blocks = replace(case, probabilities=source)
        record = measure(in_blocks, calibration, uncertainty, findings=case.labels.foreground)
        return (
            uncertainty,
            uncertainty.least_certain_places(in_blocks, ["b/c", "d"], calibration),
            record,
        )

    first, places, expected = measure_in_blocks(1 << 30, num_blocks=1)
    assert list(first.images)[2:] == ["probability_0_a", "probability_1_b-c", "probability_2_d"]
    delivered = case.labels.channels_of(case.segmentation)
    np.testing.assert_array_equal(
        first.sensitive, sensitive_labels(probs, delivered, first.limits, regions)
    )
    if calibrated:
        row = expected.structures.iloc[0]
        assert row.network_volume != pytest.approx(row.predicted_volume, rel=0.01)
    for uncertainty, places_in_blocks, record in (
        measure_in_blocks(3000, 5),
        measure_in_blocks(1, 10),
    ):
        assert places_in_blocks == places
        np.testing.assert_array_equal(uncertainty.sensitive, first.sensitive)
        for name, values in first.images.items():
            np.testing.assert_allclose(uncertainty.images[name], values, rtol=1e-6, atol=1e-6)
        assert record.scan | {"unit": 0} == pytest.approx(expected.scan | {"unit": 0}, nan_ok=True)
        pd.testing.assert_frame_equal(record.structures, expected.structures, rtol=1e-6)
        for found, same in zip(record.findings, expected.findings):
            assert len(found.found) == len(same.found) > 0
            assert found.found[0].mean_probability == pytest.approx(same.found[0].mean_probability)


def test_a_large_case_is_never_whole_in_memory() -> None:
    """Calibrated and measured, in a small share of the memory that its probabilities take."""
    probs = np.random.default_rng(0).random((16, 96, 96, 96), np.float32)
    probs /= probs.sum(0)
    values = tuple(range(16))

    class WholeImage(Blocks):
        crop = tuple(slice(0, 96) for _ in range(3))

    case = replace(
        make_case(False),
        labels=Labels(tuple(map(str, values)), values, False, None, values),
        segmentation=probs.argmax(0).astype(np.uint8),
        probabilities=WholeImage(probs, False, 1 << 20),
    )
    calibration = map_from_tables(np.full((1, 15), 0.7), np.zeros((1, 15)))
    tracemalloc.start()
    try:
        measure(case, calibration)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < probs.nbytes / 2
