"""A map of other networks than those that predicted a folder is refused, as far as files tell."""

from __future__ import annotations

import shutil

import pytest

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.calibrator import check_same_networks
from nnunet_nacl.cases.record import record_path
from nnunet_nacl.cases.record_file import RECORDS
from nnunet_nacl.cli.main import main
from nnunet_nacl.estimators.log_odds_map import map_from_tables
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import checksum
from tests.metrics.models import make_trained, map_to_json
from tests.runs.folders import CLASSES, write_json
from tests.worklist.records import record

OTHER = "0" * 64
KNOWN = ""
UNKNOWN = "cannot be known from their files"


@pytest.fixture
def model(tmp_path):
    return make_trained(tmp_path / "nnunet", labels=CLASSES, cases=2, folds=2)


@pytest.fixture
def say(model, tmp_path):
    """Function that compares a folder with a map of given content: the note, or the error."""

    def say(folder, **content) -> str:
        structures = {"1": "anterior", "2": "posterior"}
        whole = map_to_json(
            {"temperature": map_from_tables([0.5, 0.5], [0.0, 0.0])}, "temperature", structures
        )
        write_json(
            tmp_path / "map.json",
            whole | {"origin": whole["origin"] | {"source": str(model.folder)} | content},
        )
        try:
            path = tmp_path / "map.json"
            predictions = PredictionFolder.open(folder, need_reference=False)
            return " ".join(check_same_networks(path, CalibrationMap.load(path), predictions))
        except UserError as error:
            return f"error: {error}"

    return say


def digests(model) -> dict[str, str]:
    return {
        fold: checksum(model.folder / f"fold_{fold}" / "checkpoint_final.pth")
        for fold in ("0", "1")
    }


def test_a_validation_is_of_the_checkpoint_beside_it(model, say):
    ours = digests(model)
    validation = model.validation(0)
    assert say(validation, checkpoint_sha256=ours) == KNOWN
    assert "fitted to other networks than those of fold 0" in say(
        validation, checkpoint_sha256=ours | {"0": OTHER}
    )
    shutil.move(
        model.folder / "fold_0" / "checkpoint_final.pth",
        model.folder / "fold_0" / "checkpoint_best.pth",
    )
    assert UNKNOWN in say(validation, checkpoint_sha256=ours | {"0": OTHER})
    measured = record("case_00", made_by={"checkpoint": ours["0"]})
    # as when it was predicted with checkpoint_best
    measured.save(record_path(validation / RECORDS, "case_00"))
    assert say(validation, checkpoint_sha256=ours) == KNOWN
    assert say(validation, checkpoint_sha256=ours | {"0": OTHER}).startswith("error")


def test_every_command_says_so(model, say, tmp_path, capsys):
    ours = digests(model)
    folder = model.validation(0)
    truth = ("-gt", str(model.references))
    given = ("-map", str(tmp_path / "map.json"), "-np", "1")
    for digest, said in (
        (OTHER, "other networks than those of fold"),
        (ours["0"], "has learned nothing"),
    ):
        say(folder, checkpoint_sha256=ours | {"0": digest})
        status = 2 if digest == OTHER else 0
        commands = [["review", "-i", str(folder), "-o", str(tmp_path / "out"), *given]]
        commands.append(
            [
                "evaluate",
                "-i",
                str(folder),
                *truth,
                "--chill",
                "-o",
                str(tmp_path / "c.json"),
                *given,
            ]
        )
        for command in commands:
            assert main(command) == status
            assert status == 0 or said in capsys.readouterr().err


def test_what_predict_wrote_says_by_which_checkpoints(model, say, tmp_path):
    ours = digests(model)
    folder = tmp_path / "predicted"
    shutil.copytree(model.validation(0), folder)
    for name in ("dataset.json", "plans.json"):
        shutil.copy(model.folder / name, folder)
    made_by = {
        "folder": str(model.folder),
        "dataset": None,
        "trainer": "nnUNetTrainer",
        "configuration": "3d_fullres",
    }
    made_by |= {"checkpoint": "checkpoint_final.pth", "checkpoints_sha256": ours}
    write_json(folder / "prediction.json", {"model": made_by})
    assert say(folder, checkpoint_sha256=ours) == KNOWN
    assert say(folder, checkpoint_sha256={"0": ours["0"], "1": OTHER}).startswith("error")
    other = model.folder.with_name("nnUNetTrainerCE__nnUNetPlans__3d_fullres")
    said = say(folder, source=str(other))  # a map that names no checkpoints
    assert "learned with nnUNetTrainerCE" in said
    assert "give the map of this model" in said
