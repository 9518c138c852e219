"""The voxels of a case, against its files."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_nacl.nnunet.prediction_folder import find_fold_folders
from nnunet_nacl.numbers.case_voxels import read_voxels
from nnunet_nacl.runs.heldout import HeldOut


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
