"""Stock nnU-Net, in an environment without this package, predicts with a calibrated checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.cases.checkpoints import CALIBRATED, write_calibrated
from tests.calibration.models import make_trained
from tests.cases.folders import CLASSES, REGIONS

PREDICT = (
    "import torch\n"
    "try:\n    import nnunet_nacl\n"
    "except ImportError:\n    pass\n"
    "else:\n    raise SystemExit('this package must not be here')\n"
    "from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor\n"
    "for checkpoint in {checkpoints!r}:\n"  # one process, no workers: imports take longest
    "    predictor = nnUNetPredictor(device=torch.device('cpu'), perform_everything_on_device=False)\n"
    "    predictor.initialize_from_trained_model_folder({model!r}, ('0', '1'), checkpoint)\n"
    "    predictor.predict_from_files_sequential({images!r}, {root!r} + checkpoint, save_probabilities=True)\n"
)


@pytest.mark.parametrize("kind, labels", [("plain", CLASSES), ("residual", REGIONS)], ids=["plain", "residual"])
def test_stock_nnunet_predicts_what_the_map_makes_of_its_probabilities(
    kind, labels, tmp_path, new_environment, libraries
):
    model = make_trained(tmp_path / "nnunet", kind=kind, labels=labels, folds=2, cases=1)
    calibration = CalibrationMap([0.6, 1.3], [-0.4, 0.7], labels is REGIONS)
    write_calibrated(model.folder, ["0", "1"], "checkpoint_final.pth", calibration, {})
    images = tmp_path / "images"
    images.mkdir()
    volume = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(9, 14, 18)).astype(np.float32))
    volume.SetSpacing((0.6, 0.8, 2.5))  # not the network's: logits are resampled
    sitk.WriteImage(volume, str(images / "case_0000.nii.gz"))
    environment = new_environment()
    environment.add_to_path(libraries)
    runs = ("checkpoint_final.pth", CALIBRATED)
    for run in runs:
        (tmp_path / run).mkdir()
    places = {"model": str(model.folder), "images": str(images), "root": f"{tmp_path}/"}
    environment.run(PREDICT.format(checkpoints=runs, **places))
    before, after = (np.load(tmp_path / run / "case.npz")["probabilities"] for run in runs)
    applied = calibration(before)
    difference = np.abs(applied - after)
    # in the corners nnU-Net's Gaussian weight of a tile, in half precision, leaves one or two digits of a logit
    assert difference[:, 2:-2, 2:-2, 2:-2].max() < 5e-3
    assert np.quantile(difference, 0.95) < 2e-3 and difference.mean() < 5e-4
    assert np.abs(applied - before).mean() > 0.02
