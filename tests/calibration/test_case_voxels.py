"""The voxels of a case, against its files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_nacl.calibration.case_voxels import MASK_BITS, pack, read_voxels
from nnunet_nacl.io.locate import find_fold_folders
from nnunet_nacl.runs.heldout import HeldOut
from tests.calibration.problems import read_held_out
from tests.calibration.test_effect_of_samples import LABELS, crop


@pytest.mark.parametrize("kind", list(LABELS))
def test_labels_and_truth_are_those_of_the_files(make_validated, kind):
    model = make_validated(labels=LABELS[kind], cases=1)
    path = next(model.validation(0).glob("*.npz"))
    probs = np.load(path)["probabilities"]
    probs[:, 0, 5] = 0.5 if kind.startswith("regions") else 1 / 3  # of equal classes the lowest, half a region is out
    np.savez_compressed(path, probabilities=probs)
    crop(model)
    held_out = HeldOut(find_fold_folders(model.folder))
    (name,) = held_out.files
    case, regions = read_held_out(held_out, name), kind.startswith("regions")
    probs = np.load(path)["probabilities"]
    data = held_out.folders[held_out.fold[name]].load(held_out.files[name])
    known = data.truth_and_masks(held_out.settings.dilation_mm, held_out.settings.boundary_mm)
    valid = np.ones(probs.shape[1:], bool) if known.valid is None else known.valid
    assert valid.all() == ("ignore" not in kind)
    seen = valid.copy()
    seen[:, :3] = False  # what crop took away
    label = pack(probs > 0.5, 2) if regions else probs.argmax(0)
    truth = pack([known.labels > 0, known.labels == 2], 2) if regions else known.labels
    np.testing.assert_array_equal(case.label, label[seen])
    np.testing.assert_array_equal(case.target, truth[seen])
    assert (case.label == 0).any() and len(np.unique(case.label)) == 3
    predicted = case.masks >> MASK_BITS.index("predicted") & 1
    union = case.masks >> MASK_BITS.index("union") & 1
    np.testing.assert_array_equal(predicted, case.label != 0)
    np.testing.assert_array_equal(union, (case.label != 0) | (case.target != 0))
    np.testing.assert_array_equal(case.masks & 1, case.target != 0)
    assert case.outside[:, 2].sum() == (valid & ~seen).sum()
    odds = torch.cat(list(case.odds()), 1)
    assert odds.shape == (2, len(case.label)) and odds.dtype == torch.float32


def test_a_case_that_the_network_never_saw_is_refused(make_validated):
    model = make_validated(cases=1)
    path = next(model.validation(0).glob("*.npz"))
    probs = np.load(path)["probabilities"] * 0
    probs[0] = 1
    np.savez_compressed(path, probabilities=probs)
    held_out = HeldOut(find_fold_folders(model.folder))
    (name,) = held_out.files
    folder = held_out.folders[held_out.fold[name]]
    with pytest.raises(ValueError, match="leave this case out"):
        read_voxels(folder.load(held_out.files[name]), folder.labels, held_out.settings)
