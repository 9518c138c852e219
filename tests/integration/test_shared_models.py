"""What docs/how-to/share-a-model.md says, done with nnU-Net's own commands, at the other site without this package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_nacl.json_files import read_dict
from tests.numbers.models import make_trained
from tests.pages import ROOT, blocks
from tests.runs.folders import write_json

pytestmark = pytest.mark.slow
OURS = "nnUNetTrainerNACL_k5"
EXPORT = "from nnunetv2.model_sharing.entry_points import export_pretrained_model_entry as main; main()"
INSTALL = (
    "import sys; sys.argv = ['install', {archive!r}]\n"
    "from nnunetv2.model_sharing.entry_points import install_from_zip_entry_point\n"
    "install_from_zip_entry_point()\n"
)
PREDICT = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder as main; main()"
PREDICT_THERE = (
    "import sys\n"
    "try:\n    import nnunet_nacl\n"
    "except ImportError:\n    pass\n"
    "else:\n    raise SystemExit('this package must not be here')\n"
    "sys.argv = ['predict', *{arguments!r}]\n" + PREDICT
)
RENAME, DIVIDE = (
    "\n".join(line for line in code.splitlines() if not line.startswith("model = "))
    for language, code in blocks((ROOT / "docs/how-to/share-a-model.md").read_text(encoding="utf-8"))
    if language == "python"
)


def npz(folder: Path) -> np.ndarray:
    return np.load(folder / "case.npz")["probabilities"]


def test_a_model_predicts_the_same_without_this_package_and_a_divided_network_as_its_map(
    tmp_path, new_environment, libraries
):
    model = make_trained(tmp_path / "nnunet", folds=2, cases=3, sharpness=2.0)
    write_json(model.folder / "dataset_fingerprint.json", {})
    for fold in (0, 1):
        path = model.folder / f"fold_{fold}" / "checkpoint_final.pth"
        torch.save(torch.load(path, weights_only=False) | {"trainer_name": OURS}, path)
        (path.parent / "progress.png").write_bytes(b"a picture")
        write_json(model.validation(fold) / "summary.json", {"foreground_mean": {}})
    ours = model.folder.rename(model.folder.with_name(model.folder.name.replace("nnUNetTrainer", OURS)))
    images, archive, results = tmp_path / "images", tmp_path / "model.zip", tmp_path / "results"
    images.mkdir()
    results.mkdir()
    volume = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(9, 14, 18)).astype(np.float32))
    sitk.WriteImage(volume, str(images / "case_0000.nii.gz"))
    to_predict = ["-i", images, "-f", 0, 1, "-device", "cpu", "-npp", 1, "-nps", 1, "--save_probabilities"]
    variables = {**os.environ, **model.environment, "OMP_NUM_THREADS": "1"}

    def here(*command, status: int = 0, **changed) -> str:
        arguments = [sys.executable, *map(str, command)]
        result = subprocess.run(arguments, env=variables | changed, capture_output=True, text=True, timeout=600)
        assert result.returncode == status, result.stderr
        return result.stderr

    command, which = ["-m", "nnunet_nacl.cli.main"], ["-d", model.dataset, "-tr", OURS, "-c", "3d_fullres"]
    here("-c", PREDICT, *to_predict, "-m", ours, "-o", tmp_path / "here")
    names = {"Path": Path, "model": ours}
    exec(RENAME, names)
    here(*command, "calibrate", *which, "-np", 1, "--any_age")
    here("-c", EXPORT, *which, "-f", 0, 1, "-o", archive)

    environment = new_environment()
    environment.add_to_path(libraries)
    environment.run(INSTALL.format(archive=str(archive)), nnUNet_results=str(results))
    there = results / model.dataset / ours.name
    arguments = [str(a) for a in (*to_predict, "-m", there, "-o", tmp_path / "there")]
    environment.run(PREDICT_THERE.format(arguments=arguments), OMP_NUM_THREADS="1")
    assert np.array_equal(npz(tmp_path / "here"), npz(tmp_path / "there"))
    assert (tmp_path / "here" / "case.nii.gz").read_bytes() == (tmp_path / "there" / "case.nii.gz").read_bytes()

    given = ours / "calibration_map.json"
    here(*command, "calibrate", *which, "-map", given, nnUNet_results=str(results))
    exec(DIVIDE, names | {"model": there})
    divided = ["-chk", "checkpoint_temperature.pth"]
    here("-c", PREDICT, *to_predict, "-m", there, "-o", tmp_path / "divided", *divided)
    slope = read_dict(given)["maps"]["temperature"]["slopes"][0][0]
    assert slope != pytest.approx(1, abs=0.1)
    expected = npz(tmp_path / "here").astype(float) ** slope
    apart = np.abs(npz(tmp_path / "divided") - expected / expected.sum(0))
    assert np.quantile(apart, 0.99) < 2e-3 and apart.max() < 0.05  # half precision, which is coarse in the corners
    said = here(*command, "calibrate", *which, "-map", given, *divided, status=2, nnUNet_results=str(results))
    assert "was fitted to other networks than those of fold 0, 1" in said
    to_predict = ["-i", images, "-m", there, "-device", "cpu", "-npp", 0, "-nps", 0, *divided]
    said = here(*command, "predict", *to_predict, "-o", tmp_path / "listed")
    assert "not calibrated" in said and "was fitted to other networks" in said
