"""Commands with a mistake, and the one line that answers each: what is wrong, and what to type.

A mistake in the arguments alone is answered before PyTorch is loaded; one in data before anything
is predicted.
"""

from __future__ import annotations

import shlex
import shutil
import sys

import pytest
import torch

from nnunet_nacl.cli.main import main
from nnunet_nacl.utilities.json_files import read_dict
from tests.metrics.models import make_trained
from tests.processes import run_warm
from tests.runs.folders import write_json


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a validated model of two folds, its ground truth, and other things to give."""
    root = tmp_path_factory.mktemp("mistyped")
    model = make_trained(root, cases=3, folds=2, sharpness=2.0)
    best = model.folder / "fold_0" / "checkpoint_final.pth"
    shutil.copy2(best, best.with_name("checkpoint_best.pth"))
    shutil.copytree(model.folder, root / "copy" / model.folder.name)
    (root / "empty").mkdir()
    (root / "results").symlink_to(model.folder.parents[1])
    (root / "model").symlink_to(model.folder)
    (root / "truth").symlink_to(model.references)
    return model, root


@pytest.fixture
def answer(root, monkeypatch, capsys):
    """What a command says, of which it must be one line; paths are within the folder."""
    model, folder = root
    monkeypatch.chdir(folder)

    def type_command(command: str, environment: bool = True) -> str:
        for name, value in model.environment.items():
            monkeypatch.setenv(name, value)
        if not environment:
            monkeypatch.delenv("nnUNet_results")
        try:
            status = main(shlex.split(command))
        except SystemExit as ended:
            status = ended.code
        assert status == 2
        [line] = capsys.readouterr().err.splitlines()
        return line

    return type_command


NAME_A_MODEL = "-d DATASET -c CONFIGURATION, or -m FOLDER"
MISSING = {
    "calibrate": f"name a model ({NAME_A_MODEL}), or a folder of predictions (-i FOLDER -gt LABELS",
    "calibrate -i empty": "-i needs -gt LABELS, the ground truth of these cases",
    "calibrate -d 999 -c 3d_fullres -gt truth": "-gt LABELS is the ground truth of -i FOLDER",
    "calibrate -m nowhere": "-m nowhere: no such folder; give TRAINER__PLANS__CONFIGURATION",
    "evaluate": f"name a model ({NAME_A_MODEL}) or a folder of predictions (-i PREDICTIONS -gt",
    "evaluate -d 999": "-d needs -c CONFIGURATION, such as -c 3d_fullres",
    "tune": f"name the model: {NAME_A_MODEL}",
    "tune -d 999 -c 3d_fullres -m model": f"name the model once: {NAME_A_MODEL}",
    "predict": "arguments are required: -i, -o; `nnunet_nacl predict -h` says what to type",
    "predict -i empty -o out": f"name the model: {NAME_A_MODEL}",
    "predict -i empty -o out -overwrite": "no flag -overwrite; did you mean --overwrite?",
    "compare -o out": "at least two: -d DATASET -c CONFIGURATION -tr TRAINER TRAINER",
    "compare -o out -tr a b": "add -d DATASET -c CONFIGURATION, such as -d 4 -c 3d_fullres",
    "review -i empty": "give -o FOLDER",
    "review -back empty": "goes with -marks marks.csv, which its pages save, or -corrected FOLDER",
    "calibrate -d 999 -c 2d": "has no model nnUNetTrainer__nnUNetPlans__2d; type -c 3d_fullres.",
    "calibrate -d 999 -c 2d -tr X": "; type -tr nnUNetTrainer -c 3d_fullres.",
    "calibrate -d Hippocampus -c 2d": "no data set Hippocampus; nnUNet_results has -d 999 (Dataset",
    "calibrate -d 7 -c 2d": "there is no data set 7; nnUNet_results has -d 999 (Dataset999_",
    "calibrate -d Dataset007_X -c 2d": "no such data set; nnUNet_results has -d 999 (Dataset999_",
}
"""By command the answer to what is missing or unknown, for which no data is read."""


@pytest.mark.parametrize("command", MISSING)
def test_what_is_missing_is_named_in_one_line(answer, command):
    assert MISSING[command] in answer(command)


def load_nothing_heavy(commands: list[str]) -> int:
    """In a process of its own: the commands that load PyTorch, on stdout."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("torch", "nnunet_nacl")]:
        del sys.modules[name]
    from nnunet_nacl.cli.main import main as run_again

    for command in commands:
        try:
            run_again(shlex.split(command))
        except SystemExit:
            pass
        if "torch" in sys.modules:
            print(command)
            return 1
    return 0


def test_what_is_missing_is_said_before_pytorch_is_loaded(root, monkeypatch, tmp_path):
    model, folder = root
    monkeypatch.chdir(folder)
    for name, value in model.environment.items():
        monkeypatch.setenv(name, value)
    ended = run_warm(load_nothing_heavy, list(MISSING), folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "")


MODEL = "-d 999 -c 3d_fullres"
OF_DATA = {
    f"calibrate {MODEL} -map {{raw}}": "dataset.json is no calibration map; give the calibration_m",
    f"calibrate {MODEL} -chk checkpoint_bst.pth": (
        "or give -chk checkpoint_best.pth or -chk checkpoint_final.pth."
    ),
    f"calibrate {MODEL} -f 0": "3 held-out cases are too few to calibrate, it takes 5; add folds",
    f"calibrate {MODEL} -groups x": "-groups 'x' gives no patient for 6 cases, case_00 first",
    f"calibrate {MODEL} -groups c": "all cases belong to one patient, c: nothing is left to test",
    f"calibrate {MODEL} -bad 0.7 -structures liver": "-structures liver: there is no such",
    f"evaluate {MODEL} -bins 0": "-bins must be an integer from 1 to 10,000, got 0",
    f"evaluate {MODEL} -f 3": "fold_3 has no validation folder; train it, or give -f 0 1.",
    "evaluate -i truth -gt truth": "truth holds no probabilities (*.npz); predict these cases",
    "review -i truth -o out": "truth holds no probabilities (*.npz); predict these cases",
    "calibrate -i truth -gt truth": "truth holds no probabilities (*.npz); predict these cases",
    "review -back empty -marks marks.csv": "empty holds no list (prediction.json); give the output",
}
"""By command the answer to what is wrong with data, which is said before anything is predicted."""


@pytest.mark.parametrize("command", OF_DATA)
def test_what_is_wrong_with_data_is_named_before_anything_is_predicted(
    answer, root, monkeypatch, command
):
    for function in ("measure_validation", "measure_folders"):
        monkeypatch.delattr(f"nnunet_nacl.nnunet.held_out_cases.{function}")
    model, _ = root
    said = answer(command.format(raw=model.folder / "dataset.json") + " -np 1")
    assert OF_DATA[command] in said


@pytest.mark.parametrize("command", ["calibrate", "evaluate", "tune", "predict -i empty -o out"])
def test_without_nnunet_results_the_line_to_type_is_named(answer, command):
    said = answer(f"{command} {MODEL}", environment=False)
    assert "type `export nnUNet_results=FOLDER`" in said and said.endswith("or give -m FOLDER.")


def test_a_models_folder_alone_names_the_model_wherever_it_lies(root, monkeypatch, capsys):
    model, folder = root
    monkeypatch.chdir(folder)
    monkeypatch.setenv("nnUNet_preprocessed", model.environment["nnUNet_preprocessed"])
    monkeypatch.delenv("nnUNet_results", raising=False)
    copy = f"copy/{model.folder.name}"
    for command in (
        f"calibrate -m {copy} -o map.json",
        f"evaluate -m {copy} -o report.json",
        f"compare -tr A=model B={copy} -o compared",
    ):
        assert main([*command.split(), "-np", "1"]) == 0
    assert read_dict(folder / "compared" / "comparison.json")["datasets"][0]["name"].startswith(
        "Dataset999_"
    )


def test_a_trainer_that_is_not_here_is_named_before_anything_is_predicted(
    answer, root, monkeypatch, tmp_path
):
    model, _ = root
    mine = shutil.copytree(
        model.folder,
        tmp_path / model.folder.name.replace("nnUNetTrainer", "nnUNetTrainerMine"),
        ignore=shutil.ignore_patterns("validation*"),
    )
    for path in mine.rglob("*.pth"):
        content = torch.load(path, weights_only=False)
        torch.save(content | {"trainer_name": "nnUNetTrainerMine"}, path)
    (tmp_path / "theirs").mkdir()
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "theirs"))
    splits = [{"train": [], "val": [f"case_{fold}{i}" for i in range(3)]} for fold in range(2)]
    write_json(model.references.parent / "splits_final.json", splits)
    said = answer(f"calibrate -m {mine} -device cpu -np 1")
    assert said.startswith("nnunet_nacl calibrate: error: trainer nnUNetTrainerMine: found neither")
    assert f"nor in the folders of nnUNet_extTrainer ({tmp_path / 'theirs'})" in said
    assert "install the package that has it, or set nnUNet_extTrainer" in said
