"""A model that others made can name a command where nnU-Net expects a network: nothing runs it unless it is trusted."""

from __future__ import annotations

import contextvars
import sys

import numpy as np
import pytest

from nnunet_nacl import Predictor
from nnunet_nacl.cli.main import main
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import read_dict
from tests.numbers.models import give_map, make_trained
from tests.runs.folders import write_image, write_json

SPACING_MM = (2.0, 1.0, 0.5)


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A model with scans and labels beside it; loading its weights makes the folder RAN."""
    (tmp_path / "harmful.py").write_text(f"import os\ndef run(weights):\n    os.mkdir({str(tmp_path / 'RAN')!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "harmful", raising=False)
    model = make_trained(tmp_path / "nnunet", folds=2, cases=1)
    plans = read_dict(model.folder / "plans.json")
    mock = {"network_class_name": "unittest.mock.Mock", "arch_kwargs": {"load_state_dict.side_effect": "harmful.run"}}
    mock["_kw_requires_import"] = ["load_state_dict.side_effect"]
    plans["configurations"]["3d_fullres"]["architecture"] = mock
    write_json(model.folder / "plans.json", plans)
    give_map(model)
    for name, value in model.environment.items():
        monkeypatch.setenv(name, value)
    results = model.environment["nnUNet_results"]  # nnU-Net reads it when it is imported, which may have been before
    monkeypatch.setattr("nnunetv2.utilities.file_path_utilities.nnUNet_results", results)
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
        ("evaluate", *MODEL, "--predict", "-device", "cpu", "-np", "1"),
        (),
    ],
    ids=["predict", "calibrate images", "evaluate", "Python"],
)
def test_a_model_that_was_not_looked_at_runs_nothing(foreign, command, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    if command:
        main([word.format(model=foreign.folder) for word in command])
        error = capfd.readouterr().err.splitlines()[-1]
    else:
        with pytest.raises(UserError) as caught:
            Predictor(foreign.folder, device="cpu")
        error = str(caught.value)
    assert not (tmp_path / "RAN").exists()
    assert f"plans.json of {foreign.folder}: network_class_name is 'unittest.mock.Mock', which does not" in error
    assert "it can run code. If you know who made it, pass --trust_checkpoint; else do not use it." in error


def test_a_model_that_is_trusted_is_nnunets_matter(foreign, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["predict", "-i", "scans", "-o", "out", "-m", str(foreign.folder), "-device", "cpu", "-npp", "0"]
    contextvars.copy_context().run(main, [*command, "-nps", "0", "--trust_checkpoint"])
    assert (tmp_path / "RAN").is_dir()
