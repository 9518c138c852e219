"""Bad input: each broken case is named with what is wrong, and the good ones are measured and
kept."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.nnunet.held_out import measure_folders
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.utilities.errors import UserError
from tests.runs.folders import read, write_image, write_json
from tests.runs.predictions import SPACING_MM


def saved(change, name="probabilities"):
    """Saves the probabilities as a function changes them."""

    def damage(npz, truth):
        np.savez_compressed(npz, **{name: change(np.load(npz)["probabilities"])})

    return damage


def truth_as(change, spacing_mm=SPACING_MM):
    return lambda npz, truth: write_image(change(read(truth)), truth, spacing_mm)


def truth_cut(npz, truth):
    truth.write_bytes(truth.read_bytes()[:-30])


def cut_off(npz, truth):
    npz.write_bytes(npz.read_bytes()[:-200])


def renamed(name):
    def damage(npz, truth):
        for path in (npz, npz.with_suffix(".nii.gz"), truth):
            path.rename(path.with_name(name + path.name.removeprefix("case_00")))

    return damage


def nan_at(array):
    array = array.astype(np.float32)
    array.flat[3] = np.nan
    return array


PROBLEMS = {
    "truncated npz": (cut_off, "case_00.npz", "truncated or corrupt"),
    "other key": (saved(lambda probs: probs, "softmax"), "case_00.npz", "no item named"),
    "pickled npz": (
        saved(lambda probs: np.array([{}], dtype=object)),
        "case_00.npz",
        "of shape (1,)",
    ),
    "shape": (saved(lambda probs: probs[:, 1:]), "case_00.npz", "(3, 5, 14, 12)", "(3, 6, 14, 12)"),
    "integers": (
        saved(lambda probs: np.ones(probs.shape, np.uint8)),
        "case_00.npz",
        "floating point",
    ),
    "NaN": (saved(lambda probs: np.where(probs > 0.999, np.nan, probs)), "case_00.npz", "NaN"),
    "sum": (saved(lambda probs: probs * 0.9), "case_00.npz", "sum to 0.9"),
    "logits": (saved(np.log), "case_00.npz", "logits"),
    "label": (truth_as(lambda truth: np.full_like(truth, 7)), "case_00.nii.gz", "label 7"),
    "geometry": (
        truth_as(np.asarray, (1, 1, 1)),
        "case_00.nii.gz",
        "spacing (1.0, 1.0, 1.0) and (2.0, 1.0, 0.5)",
    ),
    "no reference": (lambda npz, truth: truth.unlink(), "case_00.nii.gz", "no ground truth"),
    "truth cut off": (truth_cut, "gt_segmentations/case_00.nii.gz: cannot be read", "truncated"),
    "truth is NaN": (truth_as(nan_at), "gt_segmentations/case_00.nii.gz", "NaN or infinite"),
    "almost": (
        truth_as(lambda truth: truth + np.float32(1e-6)),
        "case_00.nii.gz",
        "label 1e-06, 1.000001",
    ),
    "extra case": (renamed("case_07"), "case_07.npz", "validation split"),
    "not UTF-8": (
        renamed(os.fsdecode(b"caf\xe9")),
        "caf\\udce9.npz is not in the validation split",
    ),
}


@pytest.mark.parametrize("what", PROBLEMS)
def test_a_bad_case_is_named_and_the_others_are_kept(make_validated, what):
    model = make_validated(cases=2)
    damage, *parts = PROBLEMS[what]
    damage(model.validation() / "case_00.npz", model.references / "case_00.nii.gz")
    found = measure_folders(find_fold_folders(model.folder), Work(), chill=False)
    message = " ".join(found.problems.values())
    assert all(part in message for part in parts), message
    assert all("\n" not in problem for problem in found.problems.values())
    assert list(found.records) == ["case_01"]
    assert [path.name for path in (model.validation() / "records").iterdir()] == ["case_01.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: (m.folder / "dataset.json").unlink(), "no dataset.json .* dataset_json"),
        (lambda m: (m.folder / "plans.json").unlink(), "no plans.json .* plans_json"),
        (
            lambda m: write_json(m.folder / "plans.json", {"dataset_name": "../x"}),
            "no ground truth of ../x",
        ),
        (
            lambda m: write_json(m.folder / "plans.json", {"configurations": {"2d": 5}}),
            "configurations.2d: .* not 5",
        ),
        (
            lambda m: write_json(
                m.folder / "dataset.json", {"file_ending": ".mha", "labels": {"a": 1}}
            ),
            "not nnU-Net's",
        ),
        (
            lambda m: [p.unlink() for p in m.validation().glob("*.npz")],
            "no probabilities .* `--npz`",
        ),
        (
            lambda m: [p.write_bytes(b"") for p in m.validation().glob("*.npz")],
            "no case could be .*\n.*case_00.npz",
        ),
        (
            lambda m: m.references.rename(m.root / "elsewhere"),
            "no ground truth of Dataset999_Synthetic",
        ),
    ],
)
def test_an_unusable_folder_is_named(make_validated, change, message):
    model = make_validated(cases=1)
    change(model)
    with pytest.raises(UserError, match=message):
        measure_folders({"": PredictionFolder.open(model.validation())}, Work())


@pytest.mark.parametrize(
    ("spacing", "reach"),
    [([10, 3.5, 1.5], 3.5), ([10, 1.5, 1.5], 2), ([999, 500.0, 1], 100), ([], 2)],
)
def test_masks_reach_a_voxel_in_the_plane(make_validated, spacing, reach):
    folder = PredictionFolder.open(make_validated(cases=1).validation())
    settings = replace(
        folder.dataset,
        plans=folder.dataset.plans | {"original_median_spacing_after_transp": spacing},
    ).settings
    assert (settings.dilation_mm, settings.boundary_mm) == (reach, reach)


def test_damaged_splits_are_named(make_validated):
    model = make_validated(cases=1)
    write_json(model.references.parent / "splits_final.json", [{"train": [], "val": [5]}])
    with pytest.raises(
        UserError, match="splits_final.json: .*0.val.0: .*valid string, not 5.*; restore it"
    ):
        find_fold_folders(model.folder)
