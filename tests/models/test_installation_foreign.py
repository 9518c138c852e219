"""A model that others made can name a command where nnU-Net expects a network: nothing runs it unless it is trusted."""

from __future__ import annotations

import contextvars
import shutil
import sys
import zipfile

import numpy as np
import pytest

from nnunet_nacl.cli.main import main
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.models.installation import install_model
from nnunet_nacl.prediction import Predictor
from tests.models.travelling import give_map, make_finished
from tests.runs.folders import write_image, write_json

SPACING_MM = (2.0, 1.0, 0.5)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The model, from a zip, with scans and labels beside it; loading its weights makes the folder RAN."""
    (tmp_path / "harmful.py").write_text(f"import os\ndef run(weights):\n    os.mkdir({str(tmp_path / 'RAN')!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "harmful", raising=False)
    model = make_finished(tmp_path / "nnunet")
    plans = read_dict(model.folder / "plans.json")
    mock = {"network_class_name": "unittest.mock.Mock", "arch_kwargs": {"load_state_dict.side_effect": "harmful.run"}}
    mock["_kw_requires_import"] = ["load_state_dict.side_effect"]
    plans["configurations"]["3d_fullres"]["architecture"] = mock
    write_json(model.folder / "plans.json", plans)
    give_map(model)
    results = tmp_path / "nnunet" / "nnUNet_results"
    with zipfile.ZipFile(tmp_path / "model.zip", "w", strict_timestamps=False) as archive:
        for path in sorted(model.folder.rglob("*")):
            archive.write(path, path.relative_to(results))
    shutil.rmtree(results)
    install_model(tmp_path / "model.zip", results)
    for name, value in model.environment.items():
        monkeypatch.setenv(name, value)
    for module in ("model_sharing.model_export", "utilities.file_path_utilities"):  # which may have been imported
        monkeypatch.setattr(f"nnunetv2.{module}.nnUNet_results", str(results))
    for name, ending in (("scans", "_0000"), ("labels", "")):
        (tmp_path / name).mkdir()
        image = np.random.default_rng(0).integers(0, 3, (6, 14, 12)).astype(np.uint8)
        write_image(image, tmp_path / name / f"case{ending}.nii.gz", SPACING_MM)
    return model


MODEL = ("-d", "Dataset999_Synthetic", "-c", "3d_fullres")


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "-i", "scans", "-o", "out", "-m", "{model}", "-device", "cpu", "-npp", "0", "-nps", "0"),
        ("calibrate", "-i", "scans", "-gt", "labels", "-m", "{model}", "-o", "map.json", "-device", "cpu", "-np", "1"),
        ("calibrate", *MODEL, "-map", "{model}/calibration_map.json", "--write_checkpoints"),
        ("evaluate", *MODEL, "--predict", "-device", "cpu", "-np", "1"),
        ("export", *MODEL, "-o", "exported.zip", "--portable"),
        (),
    ],
    ids=["predict", "calibrate images", "write checkpoints", "evaluate", "export", "Python"],
)
def test_a_model_that_was_not_looked_at_runs_nothing(installed, command, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    if command:
        main([word.format(model=installed.folder) for word in command])
        error = capfd.readouterr().err.splitlines()[-1]
    else:
        with pytest.raises(UserError) as caught:
            Predictor(installed.folder, device="cpu")
        error = str(caught.value)
    assert not (tmp_path / "RAN").exists()
    assert f"plans.json of {installed.folder}: network_class_name is 'unittest.mock.Mock', no network" in error
    assert "it can run code. If you know who made it, pass --trust_checkpoint; else do not use it." in error


def test_a_model_that_is_trusted_is_nnunets_matter(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["predict", "-i", "scans", "-o", "out", "-m", str(installed.folder), "-device", "cpu", "-npp", "0"]
    contextvars.copy_context().run(main, [*command, "-nps", "0", "--trust_checkpoint"])
    assert (tmp_path / "RAN").is_dir()
