"""A map of other networks than those that predicted a folder is refused, as far as files tell."""

from __future__ import annotations

import shutil

import pytest

from nnunet_nacl.calibrate.map_file import sha256
from nnunet_nacl.cli.main import main
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from tests.numbers.models import make_trained, map_to_json
from tests.runs.folders import CLASSES, write_json

OTHER = "0" * 64


@pytest.fixture
def model(tmp_path):
    return make_trained(tmp_path / "nnunet", labels=CLASSES, cases=2, folds=2)


@pytest.fixture
def say(model, tmp_path, capsys):
    """Function that runs commands with a map of given content on a folder: status of `review`, and what it says."""

    def run(folder, **content) -> tuple[int, str]:
        structures = {"1": "anterior", "2": "posterior"}
        whole = map_to_json({"temperature": LogOddsMap([0.5, 0.5], [0.0, 0.0])}, "temperature", structures)
        write_json(tmp_path / "map.json", whole | {"source": str(model.folder)} | content)
        given = "-map", str(tmp_path / "map.json"), "-np", "1"
        capsys.readouterr()
        truth = "-gt", str(model.references)
        status = main(["review", "-i", str(folder), "-o", str(tmp_path / "out"), *given])
        said = "".join(capsys.readouterr())
        command = ["evaluate", "-i", str(folder), *truth, "--chill", "-o", str(tmp_path / "c.json"), *given]
        evaluated = main(command)
        assert (evaluated == 2) == (status == 2)
        also = "".join(capsys.readouterr())
        for part in ("other networks than those of fold", "cannot be known", "give the map of this model"):
            assert (part in said) == (part in also)
        which = ["-i", f"A={folder}", f"B={model.validation(1)}", "-map", f"A={tmp_path / 'map.json'}"]
        assert main(["compare", *which, *truth, "-o", str(tmp_path / "compared")]) == 2
        also = "".join(capsys.readouterr())  # where the networks may be the same, that it has learned nothing
        for part in ("other networks than those of fold", "give the map of this model"):
            assert (part in said) == (part in also)
        assert ("has learned nothing" in also) == (status == 0)
        return status, said

    return run


def digests(model) -> dict[str, str]:
    return {fold: sha256(model.folder / f"fold_{fold}" / "checkpoint_final.pth") for fold in ("0", "1")}


def test_a_validation_is_of_the_checkpoint_beside_it(model, say):
    ours = digests(model)
    status, said = say(model.validation(0), checkpoint_sha256=ours)
    assert status == 0 and "cannot be known" not in said
    status, said = say(model.validation(0), checkpoint_sha256=ours | {"0": OTHER})
    assert status == 2 and "fitted to other networks than those of fold 0" in said
    shutil.move(model.folder / "fold_0" / "checkpoint_final.pth", model.folder / "fold_0" / "checkpoint_best.pth")
    status, said = say(model.validation(0), checkpoint_sha256=ours | {"0": OTHER})
    assert status == 0 and "cannot be known" in said
    write_json(model.validation(0) / "predicted_by.json", {"checkpoint": "checkpoint_best.pth"})
    assert say(model.validation(0), checkpoint_sha256=ours)[0] == 0
    assert say(model.validation(0), checkpoint_sha256=ours | {"0": OTHER})[0] == 2


def test_what_predict_wrote_says_by_which_checkpoints(model, say, tmp_path):
    ours, folder = digests(model), tmp_path / "predicted"
    shutil.copytree(model.validation(0), folder)
    for name in ("dataset.json", "plans.json"):
        shutil.copy(model.folder / name, folder)
    made_by = {"folder": str(model.folder), "dataset": None, "trainer": "nnUNetTrainer", "configuration": "3d_fullres"}
    made_by |= {"checkpoint": "checkpoint_final.pth", "checkpoints_sha256": ours}
    write_json(folder / "prediction.json", {"model": made_by})
    status, said = say(folder, checkpoint_sha256=ours)
    assert status == 0 and "cannot be known" not in said
    assert say(folder, checkpoint_sha256={"0": ours["0"], "1": OTHER})[0] == 2
    other = model.folder.with_name("nnUNetTrainerCE__nnUNetPlans__3d_fullres")
    status, said = say(folder, source=str(other))  # a map that names no checkpoints
    assert status == 2 and "learned with nnUNetTrainerCE" in said and "give the map of this model" in said


def test_of_a_folder_of_nnunetv2_predict_only_the_plans_are_known(model, say, tmp_path):
    folder = tmp_path / "predicted"
    shutil.copytree(model.validation(0), folder)
    shutil.copy(model.folder / "dataset.json", folder)
    plans = read_dict(model.folder / "plans.json")
    write_json(folder / "plans.json", plans | {"plans_name": "nnUNetPlans"})
    status, said = say(folder, checkpoint_sha256=digests(model))  # as of an average of the folds
    assert status == 0 and "cannot be known from their files" in said
    assert "cannot be known from their files" in (tmp_path / "out" / "prediction.json").read_text()
    write_json(folder / "plans.json", plans | {"plans_name": "nnUNetResEncUNetLPlans"})
    status, said = say(folder, checkpoint_sha256=digests(model))
    assert status == 2 and "learned with nnUNetPlans" in said and "has nnUNetResEncUNetLPlans" in said
    assert say(folder, source=str(folder))[0] == 0  # a map of this folder
    assert "cannot be known" not in say(folder, source=str(folder))[1]
