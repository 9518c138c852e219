"""docs/share.md done with nnU-Net's own commands, at the other site without this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_nacl.utilities.json_files import read_dict
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
PREDICT = "nnUNetv2_predict_from_modelfolder"
OPTIONS = "-f 0 1 -device cpu -npp 1 -nps 1 --save_probabilities"


def documented_code() -> list[str]:
    """The blocks of Python in docs/share.md, without the lines that name the model's folder."""
    text = (ROOT / "docs/share.md").read_text(encoding="utf-8")
    documented = []
    for language, code in blocks(text):
        if language == "python":
            lines = [line for line in code.splitlines() if not line.startswith("model = ")]
            documented.append("\n".join(lines))
    return documented


RENAME, DIVIDE = documented_code()
"""Gives the checkpoints another trainer's name; divides a network's logits by its temperature."""


def read_probabilities(folder: Path) -> np.ndarray:
    return np.load(folder / "case.npz")["probabilities"].astype(float)


@dataclass(frozen=True)
class Sites:
    """A model at two sites, and what each predicted of one scan.

    Attributes:
        space: nnU-Net's commands at the first site.
        environ: The first site's nnU-Net variables.
        model: A model of a trainer of ours at the first site, with a calibration map.
        images: The scan.
        predicted: Folder that the first site predicted before anything was changed for sharing.
        other_results: nnUNet_results of the second site.
        other_model: The model there, installed from a ZIP without this package.
        other_predicted: Folder that the second site predicted.
    """

    space: Workspace
    environ: dict[str, str]
    model: Path
    images: Path
    predicted: Path
    other_results: Path
    other_model: Path
    other_predicted: Path

    @property
    def options_of_model(self) -> list[str]:
        return ["-d", self.model.parent.name, "-tr", OURS, "-c", "3d_fullres"]


def make_model_of_ours(root: Path) -> tuple[Path, dict[str, str]]:
    """The folder of a model that a trainer of ours trained, and nnU-Net's variables."""
    model = make_trained(root, folds=2, cases=3, sharpness=2.0)
    write_json(model.folder / "dataset_fingerprint.json", {})
    for fold in (0, 1):
        path = model.folder / f"fold_{fold}" / "checkpoint_final.pth"
        checkpoint = torch.load(path, weights_only=False)
        torch.save(checkpoint | {"trainer_name": OURS}, path)
        (path.parent / "progress.png").write_bytes(b"a picture")
        write_json(model.validation(fold) / "summary.json", {"foreground_mean": {}})
    name = model.folder.name.replace("nnUNetTrainer", OURS)
    return model.folder.rename(model.folder.with_name(name)), model.environment


def write_scan(folder: Path) -> Path:
    """A scan of noise in a new folder."""
    folder.mkdir()
    array = np.random.default_rng(0).normal(size=(9, 14, 18)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / "case_0000.nii.gz"))
    return folder


@pytest.fixture
def sites(tmp_path, clean_environ, new_environment, libraries) -> Sites:
    """What the page says up to the prediction at the other site."""
    model, environ = make_model_of_ours(tmp_path / "nnunet")
    other_results = tmp_path / "results"
    other_results.mkdir()
    sites = Sites(
        space=Workspace(tmp_path, clean_environ),
        environ=environ,
        model=model,
        images=write_scan(tmp_path / "images"),
        predicted=tmp_path / "here",
        other_results=other_results,
        other_model=other_results / model.parent.name / model.name,
        other_predicted=tmp_path / "there",
    )
    run_warm = sites.space.run_warm
    options_of_model = sites.options_of_model
    options = ["-i", sites.images, *OPTIONS.split()]
    sites.space.run(PREDICT, *options, "-m", model, "-o", sites.predicted, **environ)
    exec(RENAME, {"Path": Path, "model": model})
    run_warm("nnunet_nacl calibrate -np 1 --any_age", *options_of_model, **environ)
    archive = tmp_path / "model.zip"
    export = "nnUNetv2_export_model_to_zip -f 0 1"
    run_warm(export, *options_of_model, "-o", archive, **environ)

    other_python = new_environment()
    other_python.add_to_path(libraries)
    arguments = [*options, "-m", sites.other_model, "-o", sites.other_predicted]
    code = AT_THE_OTHER_SITE.format(archive=str(archive), arguments=[str(a) for a in arguments])
    few_processes = {"OMP_NUM_THREADS": "1", "nnUNet_def_n_proc": "1"}
    other_python.run(code, nnUNet_results=str(other_results), **few_processes)
    return sites


def test_a_shared_model_predicts_the_same_without_this_package_and_divided_what_its_map_says(
    sites: Sites, tmp_path: Path
) -> None:
    assert_same_prediction(sites.predicted, sites.other_predicted)

    map_file = sites.model / "calibration_map.json"
    environ_of_other = sites.environ | {"nnUNet_results": str(sites.other_results)}
    calibrate = ["nnunet_nacl calibrate", *sites.options_of_model, "-map", map_file]
    sites.space.run_warm(*calibrate, **environ_of_other)
    exec(DIVIDE, {"Path": Path, "model": sites.other_model})
    divided = ["-m", sites.other_model, "-chk", "checkpoint_temperature.pth"]

    output = tmp_path / "divided"
    options = ["-i", sites.images, *OPTIONS.split(), *divided, "-o", output]
    sites.space.run_warm(PREDICT, *options, **sites.environ)
    slope = read_dict(map_file)["maps"]["temperature"]["slopes"][0][0]
    assert_is_power(read_probabilities(output), read_probabilities(sites.predicted), slope)

    options = [*divided, "-i", sites.images, "-o", tmp_path / "listed"]
    predict = "nnunet_nacl predict -device cpu -npp 0 -nps 0"
    printed = sites.space.run_warm(predict, *options, **sites.environ)
    assert "not calibrated" in printed
    assert "was fitted to other networks" in printed


def assert_same_prediction(folder: Path, other: Path) -> None:
    assert np.array_equal(read_probabilities(folder), read_probabilities(other))
    segmentation = (folder / "case.nii.gz").read_bytes()
    assert segmentation == (other / "case.nii.gz").read_bytes()


def assert_is_power(probs: np.ndarray, before: np.ndarray, slope: float) -> None:
    """A network whose logits are multiplied by a slope has this power of its probabilities."""
    assert slope != pytest.approx(1, abs=0.1)
    power = before**slope
    difference = np.abs(probs - power / power.sum(0))
    # half precision, which is coarse in the corners
    assert np.quantile(difference, 0.99) < 2e-3
    assert difference.max() < 0.05
