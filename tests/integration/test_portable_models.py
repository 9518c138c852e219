"""A model trained with one of our trainers predicts where this package is not installed, bit by bit the same."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import SimpleITK as sitk
import torch

from nnunet_nacl.io.checkpoints import CALIBRATED
from tests.models.travelling import make_finished

OURS = "nnUNetTrainerNACL_k5"
INSTALL = (
    "import sys; sys.argv = ['install', {archive!r}]\n"
    "from nnunetv2.model_sharing.entry_points import install_from_zip_entry_point\n"
    "install_from_zip_entry_point()\n"
)
PREDICT = (
    "import sys\n"
    "try:\n    import nnunet_nacl\n"
    "except ImportError:\n    pass\n"
    "else:\n    raise SystemExit('this package must not be here')\n"
    "sys.argv = ['predict', *{arguments!r}]\n"
    "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder\n"
    "predict_entry_point_modelfolder()\n"
)


def test_a_portable_model_predicts_the_same_without_this_package(tmp_path, new_environment, libraries):
    model = make_finished(tmp_path / "nnunet", cases=3, sharpness=2.0)
    for fold in (0, 1):
        path = model.folder / f"fold_{fold}" / "checkpoint_final.pth"
        torch.save(torch.load(path, weights_only=False) | {"trainer_name": OURS}, path)
        os.utime(path, (1e9, 1e9))  # before the predictions
    ours = model.folder.rename(model.folder.with_name(model.folder.name.replace("nnUNetTrainer", OURS)))
    images = tmp_path / "images"
    images.mkdir()
    volume = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(9, 14, 18)).astype(np.float32))
    sitk.WriteImage(volume, str(images / "case_0000.nii.gz"))
    arguments = ["-i", images, "-f", "0", "1", "-device", "cpu", "-npp", "1", "-nps", "1", "--save_probabilities"]
    variables = {**os.environ, **model.environment, "OMP_NUM_THREADS": "1"}

    def here(*command) -> None:
        result = subprocess.run([*map(str, command)], env=variables, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr

    command = [sys.executable, "-m", "nnunet_nacl.cli.main"]
    which = ["-d", model.dataset, "-tr", OURS, "-c", "3d_fullres"]
    archive = tmp_path / "model.zip"
    here(*command, "calibrate", *which, "-np", "1", "--write_checkpoints", "-form", "shift")
    here(*command, "export", *which, "-o", archive, "--portable", "-form", "shift")
    predict = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder as main; main()"
    here(sys.executable, "-c", predict, *arguments, "-m", ours, "-o", tmp_path / "here", "-chk", CALIBRATED)

    environment = new_environment()
    environment.add_to_path(libraries)
    results = tmp_path / "results"
    results.mkdir()
    environment.run(INSTALL.format(archive=str(archive)), nnUNet_results=str(results))
    there = results / model.dataset / ours.name
    card = (there / "model_card.md").read_text()
    assert "| ECE predicted | 0." in card and (there / "model_card_reliability.png").read_bytes()[:4] == b"\x89PNG"
    everything = [*arguments, "-m", there, "-o", tmp_path / "there"]
    environment.run(PREDICT.format(arguments=[str(a) for a in everything]), OMP_NUM_THREADS="1")

    first, second = (np.load(tmp_path / place / "case.npz")["probabilities"] for place in ("here", "there"))
    assert np.array_equal(first, second)
    original = torch.load(ours / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    baked = torch.load(there / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert sum(not torch.equal(original[name], baked[name]) for name in original) == 2
    assert (tmp_path / "here" / "case.nii.gz").read_bytes() == (tmp_path / "there" / "case.nii.gz").read_bytes()
