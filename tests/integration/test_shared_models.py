"""What docs/share.md says, done with nnU-Net's own commands, at the other site without this
package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_nacl.json_files import read_dict
from tests.integration.workspace import Workspace
from tests.metrics.models import make_trained
from tests.pages import ROOT, blocks
from tests.runs.folders import write_json

pytestmark = pytest.mark.slow
OURS = "nnUNetTrainerNACL_k5"
AT_THE_OTHER_SITE = """
import importlib.util, sys
assert not importlib.util.find_spec("nnunet_nacl")
from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder
from nnunetv2.model_sharing.entry_points import install_from_zip_entry_point
for sys.argv, run in (
    (["install", {archive!r}], install_from_zip_entry_point),
    (["predict", *{arguments!r}], predict_entry_point_modelfolder),
):
    run()
"""
RENAME, DIVIDE = (
    "\n".join(line for line in code.splitlines() if not line.startswith("model = "))
    for language, code in blocks((ROOT / "docs/share.md").read_text(encoding="utf-8"))
    if language == "python"
)


def npz(folder: Path) -> np.ndarray:
    return np.load(folder / "case.npz")["probabilities"]


def test_a_model_predicts_the_same_without_this_package_and_a_divided_network_as_its_map(
    tmp_path, clean_environ, new_environment, libraries
):
    model = make_trained(tmp_path / "nnunet", folds=2, cases=3, sharpness=2.0)
    write_json(model.folder / "dataset_fingerprint.json", {})
    for fold in (0, 1):
        path = model.folder / f"fold_{fold}" / "checkpoint_final.pth"
        torch.save(torch.load(path, weights_only=False) | {"trainer_name": OURS}, path)
        (path.parent / "progress.png").write_bytes(b"a picture")
        write_json(model.validation(fold) / "summary.json", {"foreground_mean": {}})
    ours = model.folder.rename(
        model.folder.with_name(model.folder.name.replace("nnUNetTrainer", OURS))
    )
    images, archive, results = tmp_path / "images", tmp_path / "model.zip", tmp_path / "results"
    images.mkdir()
    results.mkdir()
    volume = sitk.GetImageFromArray(
        np.random.default_rng(0).normal(size=(9, 14, 18)).astype(np.float32)
    )
    sitk.WriteImage(volume, str(images / "case_0000.nii.gz"))
    space, here = Workspace(tmp_path, clean_environ), model.environment
    to_predict = [
        "-i",
        images,
        "-f",
        0,
        1,
        "-device",
        "cpu",
        "-npp",
        1,
        "-nps",
        1,
        "--save_probabilities",
    ]
    predict, which = (
        "nnUNetv2_predict_from_modelfolder",
        ["-d", model.dataset, "-tr", OURS, "-c", "3d_fullres"],
    )

    space.run(predict, *to_predict, "-m", ours, "-o", tmp_path / "here", **here)
    names = {"Path": Path, "model": ours}
    exec(RENAME, names)
    space.run_warm("nnunet_nacl", "calibrate", *which, "-np", 1, "--any_age", **here)
    space.run_warm("nnUNetv2_export_model_to_zip", *which, "-f", 0, 1, "-o", archive, **here)

    environment, there = new_environment(), results / model.dataset / ours.name
    environment.add_to_path(libraries)
    arguments = [str(a) for a in (*to_predict, "-m", there, "-o", tmp_path / "there")]
    code = AT_THE_OTHER_SITE.format(archive=str(archive), arguments=arguments)
    environment.run(code, nnUNet_results=str(results), OMP_NUM_THREADS="1", nnUNet_def_n_proc="1")
    assert np.array_equal(npz(tmp_path / "here"), npz(tmp_path / "there"))
    assert (tmp_path / "here" / "case.nii.gz").read_bytes() == (
        tmp_path / "there" / "case.nii.gz"
    ).read_bytes()

    given = ours / "calibration_map.json"
    space.run_warm(
        "nnunet_nacl", "calibrate", *which, "-map", given, **here | {"nnUNet_results": str(results)}
    )
    exec(DIVIDE, names | {"model": there})
    divided = ["-chk", "checkpoint_temperature.pth"]
    space.run_warm(predict, *to_predict, "-m", there, "-o", tmp_path / "divided", *divided, **here)
    slope = read_dict(given)["maps"]["temperature"]["slopes"][0][0]
    assert slope != pytest.approx(1, abs=0.1)
    expected = npz(tmp_path / "here").astype(float) ** slope
    apart = np.abs(npz(tmp_path / "divided") - expected / expected.sum(0))
    # half precision, which is coarse in the corners
    assert np.quantile(apart, 0.99) < 2e-3 and apart.max() < 0.05
    to_predict = ["-i", images, "-m", there, "-device", "cpu", "-npp", 0, "-nps", 0, *divided]
    said = space.run_warm("nnunet_nacl", "predict", *to_predict, "-o", tmp_path / "listed", **here)
    assert "not calibrated" in said and "was fitted to other networks" in said
