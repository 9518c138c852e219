"""Stock nnU-Net, in an environment without this package, predicts with a calibrated checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.checkpoints import CALIBRATED, write_calibrated
from tests.calibration.models import make_trained
from tests.evaluation.folders import CLASSES, REGIONS

PREDICT = (
    "import sys; sys.argv = ['predict', *{arguments!r}]\n"
    "try:\n    import nnunet_nacl\n"
    "except ImportError:\n    pass\n"
    "else:\n    raise SystemExit('this package must not be here')\n"
    "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder\n"
    "predict_entry_point_modelfolder()\n"
)


@pytest.mark.parametrize("kind, labels", [("plain", CLASSES), ("residual", REGIONS)], ids=["plain", "residual"])
def test_stock_nnunet_predicts_what_apply_makes_of_its_probabilities(
    kind, labels, tmp_path, new_environment, libraries
):
    model = make_trained(tmp_path / "nnunet", kind=kind, labels=labels, folds=2, cases=1)
    calibration = AffineMap([0.6, 1.3], [-0.4, 0.7], labels is REGIONS)
    write_calibrated(model.folder, ["0", "1"], "checkpoint_final.pth", calibration, {})
    images = tmp_path / "images"
    images.mkdir()
    volume = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(9, 14, 18)).astype(np.float32))
    volume.SetSpacing((0.6, 0.8, 2.5))  # not the network's: logits are resampled
    sitk.WriteImage(volume, str(images / "case_0000.nii.gz"))
    environment = new_environment()
    environment.add_to_path(libraries)
    found = {}
    for checkpoint in ("checkpoint_final.pth", CALIBRATED):
        out = tmp_path / checkpoint
        arguments = ["-i", images, "-o", out, "-m", model.folder, "-f", "0", "1", "-chk", checkpoint, "-device", "cpu"]
        arguments += ["-npp", "1", "-nps", "1", "--save_probabilities"]
        environment.run(PREDICT.format(arguments=[str(a) for a in arguments]))
        found[checkpoint] = np.load(out / "case.npz")["probabilities"]
    applied = calibration(found["checkpoint_final.pth"])
    difference = np.abs(applied - found[CALIBRATED])
    print(
        found[CALIBRATED].shape,
        difference.max(),
        np.argwhere(difference.max(0) > 5e-3).tolist(),
        np.quantile(difference, [0.9, 0.95, 0.99]),
        difference.mean(),
    )
    # nnU-Net weighs logits by a Gaussian in half precision, which loses its digits in the corners of so small a patch
    assert np.quantile(difference, 0.95) < 2e-3 and difference.mean() < 5e-4
    assert np.abs(applied - found["checkpoint_final.pth"]).mean() > 0.02
