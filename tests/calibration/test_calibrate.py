"""`nnunet_nacl.calibrate` gives the map of the command."""

from __future__ import annotations

import json

import pytest

from nnunet_nacl import calibrate
from nnunet_nacl.calibration.calibrate import take_map
from nnunet_nacl.cli.main import main
from nnunet_nacl.utilities.errors import UserError
from tests.metrics.models import make_trained


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Two trained folds of six cases."""
    trained = make_trained(tmp_path / "nnunet", cases=6, folds=2, sharpness=2.0)
    for name, value in trained.environment.items():
        monkeypatch.setenv(name, value)
    return trained


def test_the_map_of_a_model_is_that_of_the_command(model, tmp_path):
    which = ["-d", model.dataset, "-c", model.configuration, "-form", "temperature"]
    assert (
        main(["calibrate", *which, "-o", str(tmp_path / "map.json"), "-np", "1", "-device", "cpu"])
        == 0
    )
    expected = json.loads((tmp_path / "map.json").read_text())

    result = calibrate(model.folder, form="temperature", device="cpu", bad=0.8)
    path = model.folder / "calibration_map.json"
    assert not path.exists()  # before it is asked for
    written = result.write()
    assert written.calibration_map == path and written.figure == path.with_suffix(".png")
    assert json.loads(path.read_text()) == expected
    change = expected["fitted"]["effect"]["NLL all"]
    assert result.effect.loc["NLL all", "after"] == pytest.approx(change["after"]["mean"])
    assert result.flags.bad == {"anterior": 0.8, "posterior": 0.8} and not result.failed


def test_a_map_from_elsewhere_is_taken_as_it_is(model, tmp_path):
    given = tmp_path / "ours.json"
    calibrate(model.folder, form="temperature", output=given, device="cpu").write()
    assert take_map(model.folder, given).read_text() == given.read_text()


def test_what_does_not_go_together_is_refused_before_the_work(model, tmp_path):
    for arguments, message in (
        ({}, "name a model, or a folder of predictions"),
        ({"images": tmp_path}, "images need a model"),
        ({"predictions": model.validation()}, "the ground truth of these cases is needed"),
        ({"model": model.folder, "output": tmp_path / "map.txt"}, "must end with .json"),
        (
            {"model": model.folder, "structures": ["liver"], "bad": 0.5},
            "structures liver: there is no such structure",
        ),
    ):
        with pytest.raises(UserError, match=message):
            calibrate(**arguments)
    assert not any(model.folder.rglob("records"))
