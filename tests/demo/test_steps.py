"""The steps of the demo with stand-ins for nnU-Net's commands: what is run, what is skipped, what is resumed."""

from __future__ import annotations

import argparse
import json
import shutil
import zipfile
from pathlib import Path

import pytest

from nnunet_nacl.campaign.shell_commands import CommandFailed
from nnunet_nacl.cli.main import build_parser
from nnunet_nacl.demo import steps as module
from nnunet_nacl.demo.options import DemoSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.file_lock import locked
from tests.trainers.plans import make_plans

TRAINERS = tuple(f"nnUNetTrainer{method}_2epochs_3iters_adam" for method in ("DiceCE", "CE", "NACL"))
DATASET = "Dataset090_VirtualBrains"
FIRST = ["convert_MSD_dataset", "extract_fingerprint", "plan_experiment", "preprocess"]


def parse(arguments):
    """The arguments as our own command reads them."""
    if arguments[0] != "compare":
        return build_parser(arguments).parse_args(arguments)
    parser = argparse.ArgumentParser()
    for name in ("-d", "-f", "-tr", "-i", "-unranked"):
        parser.add_argument(name, nargs="+")
    for name in ("-c", "-o", "-p", "-np"):
        parser.add_argument(name, required=True)
    return parser.parse_args(arguments[1:])


class FakeNnunet:
    """Leaves the files that nnU-Net's commands would leave."""

    def __init__(self):
        self.waves: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.evaluated: list[str] = []
        self.compared: list = []
        self.predicted: list = []
        self.stop_at: str | None = None
        self.exception: BaseException = KeyboardInterrupt()

    @property
    def commands(self) -> list[str]:
        """nnU-Net's."""
        return [command for wave in self.waves for command in wave if "nnUNetv2" in command]

    def __call__(self, jobs, environment, *, on_start, on_poll, keep_open):
        wave = []
        self.waves.append(wave)
        self.environments.append(dict(environment))
        assert keep_open
        for job in jobs:
            for command in job:
                on_start(command)
                wave.append(command.shown())
                program, *arguments = command.arguments
                interrupted = self.stop_at is not None and self.stop_at in command.shown()
                if program == "nnunet_nacl":
                    getattr(self, arguments[0])(parse(arguments))
                else:
                    getattr(self, program)(arguments, environment, interrupted)
                on_poll()
                if interrupted:
                    self.stop_at = None
                    raise self.exception
        if not wave:
            self.waves.pop()
            self.environments.pop()

    def nnUNetv2_convert_MSD_dataset(self, arguments, environment, interrupted):
        target = Path(environment["nnUNet_raw"]) / DATASET
        for part in ("imagesTr", "labelsTr", "imagesTs"):
            (target / part).mkdir(parents=True)  # like nnU-Net, fails if it is there
        (target / "imagesTs" / "new_0000.nii.gz").touch()
        for case in "abcde":
            (target / "imagesTr" / f"{case}_0000.nii.gz").touch()
            (target / "labelsTr" / f"{case}.nii.gz").touch()
        if not interrupted:
            (target / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz", "numTraining": 5}))

    def nnUNetv2_extract_fingerprint(self, arguments, environment, interrupted):
        pass

    def nnUNetv2_plan_experiment(self, arguments, environment, interrupted):
        folder = Path(environment["nnUNet_preprocessed"]) / DATASET
        folder.mkdir(exist_ok=True)
        if not interrupted:
            plans = make_plans()
            plans["configurations"]["3d_fullres"] = make_plans(3)["configurations"]["3d_fullres"]
            (folder / "nnUNetPlans.json").write_text(json.dumps(plans))

    def nnUNetv2_preprocess(self, arguments, environment, interrupted):
        data = Path(environment["nnUNet_preprocessed"]) / DATASET / f"nnUNetPlans_{arguments[5]}"
        data.mkdir(exist_ok=True)
        for case in "ab" if interrupted else "abcde":
            (data / f"{case}.pkl").touch()

    def nnUNetv2_train(self, arguments, environment, interrupted):
        configuration, fold, trainer = arguments[1], arguments[2], arguments[4]
        folder = (
            Path(environment["nnUNet_results"]) / DATASET / f"{trainer}__nnUNetPlans__{configuration}" / f"fold_{fold}"
        )
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("dataset.json", "plans.json"):
            (folder.parent / name).touch()
        if "--c" in arguments:
            assert (folder / "checkpoint_latest.pth").is_file()
        with zipfile.ZipFile(folder / f"checkpoint_{'latest' if interrupted else 'final'}.pth", "w") as archive:
            archive.writestr("data", "")
        if not interrupted:
            (folder / "validation").mkdir(exist_ok=True)
            (folder / "validation" / "a.npz").touch()
            summary = {"metric_per_case": [{"prediction_file": "a.nii.gz"}]}
            (folder / "validation" / "summary.json").write_text(json.dumps(summary))

    def evaluate(self, arguments):
        assert (arguments.d, arguments.dilated, arguments.boundary) == ("90", 4, 4)
        self.evaluated.append(arguments.tr)

    def calibrate(self, arguments):
        (model,) = Path(self.environments[-1]["nnUNet_results"]).glob(f"*/{arguments.tr}__*__{arguments.c}")
        (model / "calibration_map.json").write_text(json.dumps({"folds": arguments.f}))

    def predict(self, arguments):
        self.predicted.append(arguments)

    def compare(self, arguments):
        self.compared.append(arguments)
        Path(arguments.o).mkdir(parents=True, exist_ok=True)
        names = [*arguments.tr, *([] if arguments.i is None else arguments.i)]
        trainers = [{"name": name, "label": name.split("_")[0], "ranked": "=" not in name} for name in names]
        content = {"settings": {"confidence": 0.95}, "trainers": trainers, "columns": {}, "statistics": []}
        content["datasets"] = [{"name": DATASET, "means": {}}]
        (Path(arguments.o) / "comparison.json").write_text(json.dumps(content))


@pytest.fixture
def nnunet(monkeypatch):
    fake = FakeNnunet()
    monkeypatch.setattr(module, "run_side_by_side", fake)
    return fake


@pytest.fixture
def demo(tmp_path, monkeypatch, nnunet):
    """Runs the demo with stand-ins for data and evaluation."""

    def write(folder, num_training, num_test):
        for part in ("imagesTr", "labelsTr", "imagesTs", "probabilitiesTr"):
            (folder / part).mkdir(parents=True)
        for i in range(num_training):
            (folder / "labelsTr" / f"{i}.nii.gz").touch()
        for name in "ab":  # only a is validated
            (folder / "probabilitiesTr" / f"{name}.npz").touch()
        description = {"labels": {}, "modality": {}, "training": [], "test": []}
        (folder / "dataset.json").write_text(json.dumps(description))
        return folder

    monkeypatch.setattr(module, "write_virtual_brains", write)

    def run(**changes):
        options = {
            "folder": tmp_path / "demo",
            "data": None,
            "download": None,
            "trainers": TRAINERS,
            "configuration": None,
            "folds": ("0",),
            "device": "cpu",
            "cores": 2,
            "parallel": 2,
            **changes,
        }
        return module.run_demo(DemoSettings(**options))

    return run


def kinds(commands):
    return [command.split("nnUNetv2_")[1].split()[0] for command in commands]


def test_the_stock_commands_run_in_order(demo, nnunet, capsys):
    folder = demo()
    assert kinds(nnunet.commands) == [*FIRST, "train", "train", "train"]
    assert nnunet.commands[1] == "nnUNetv2_extract_fingerprint -d 90 -np 2 --verify_dataset_integrity"
    assert nnunet.commands[4] == (f"nnUNetv2_train 90 2d_small 0 -tr {TRAINERS[0]} -p nnUNetPlans --npz -device cpu")
    output = capsys.readouterr().out
    for command in (command for wave in nnunet.waves for command in wave):
        assert f"$ {command}\n" in output
    assert "$ export nnUNet_raw=" in output and "not patients" in output
    assert f"  comparison: {folder / 'report.html'}" in output


def test_one_bar_counts_the_epochs_of_all_trainings(demo, nnunet, capsys):
    demo()
    assert " 0/6 " in capsys.readouterr().err  # two epochs of three trainers


def test_the_end_is_a_comparison_of_the_trainings_and_the_truth(demo, nnunet, tmp_path, capsys):
    folder = demo()
    (compared,) = nnunet.compared
    trainers = [*TRAINERS, *(f"{trainer}+calibrated+decided" for trainer in TRAINERS)]
    assert (compared.d, compared.c, compared.f, compared.tr) == ([DATASET], "2d_small", ["0"], trainers)
    (truth,) = compared.i
    label, _, place = truth.partition("=")
    model = Path(nnunet.environments[0]["nnUNet_results"], "Dataset090_VirtualBrains")
    model /= "TrueProbabilities__nnUNetPlans__2d_small"
    assert label == "true probabilities" and Path(place) == model / "fold_0" / "validation"
    assert {str(path.relative_to(model)) for path in model.rglob("*.*")} == {
        "fold_0/validation/a.npz",
        "dataset.json",
        "plans.json",
    }
    assert nnunet.evaluated == [*TRAINERS, "TrueProbabilities"]
    assert Path(compared.o) == folder
    assert compared.unranked == ["true probabilities"]  # what knows the truth is no competitor
    *_, scans, page = capsys.readouterr().out.splitlines()
    assert page == f"  comparison: {folder / 'report.html'}"
    predicted = tmp_path / "demo" / "predictions" / f"{DATASET}__{TRAINERS[0]}__2d_small"
    assert scans == f"  new scans, those to look at first: {predicted / 'index.html'}"


def test_other_data_have_no_truth_and_need_no_evaluation(demo, nnunet, tmp_path):
    demo()
    shutil.rmtree(tmp_path / "demo" / "data" / "Task90_VirtualBrains" / "probabilitiesTr")
    nnunet.waves.clear()
    demo()
    assert [wave[0].split()[1] for wave in nnunet.waves] == ["compare", "predict"] and nnunet.compared[-1].i is None


def test_a_single_trainer_is_compared_with_the_truth(demo, nnunet):
    demo(trainers=TRAINERS[:1])
    assert nnunet.compared[0].tr == [TRAINERS[0], f"{TRAINERS[0]}+calibrated+decided"]


def test_on_the_cpu_trainings_share_the_cores(demo, nnunet):
    demo()
    assert [len(wave) for wave in nnunet.waves[:4]] == [1, 3, 2, 1]
    assert nnunet.waves[3][0].startswith("OMP_NUM_THREADS=2 ")
    assert nnunet.environments[0]["nnUNet_n_proc_DA"] == "1"


def test_on_a_gpu_the_stock_configuration_is_used(demo, nnunet):
    demo(device="cuda", parallel=1)
    assert nnunet.commands[4].startswith("nnUNetv2_train 90 2d 0 ")
    assert "nnUNet_n_proc_DA" not in nnunet.environments[0]
    plans = json.loads(next(Path(nnunet.environments[0]["nnUNet_preprocessed"]).rglob("nnUNetPlans.json")).read_text())
    assert set(plans["configurations"]) == {"2d", "3d_fullres"}


def test_a_second_run_only_compares_also_in_another_place(demo, nnunet, tmp_path):
    demo()
    nnunet.waves.clear()
    demo()
    (tmp_path / "demo").rename(tmp_path / "moved")
    demo(folder=tmp_path / "moved")
    assert nnunet.commands == [] and len(nnunet.compared) == 3


def test_a_second_demo_in_the_folder_is_refused(demo, tmp_path):
    with locked(tmp_path / "demo" / ".lock", "taken"), pytest.raises(UserError, match="another demo.*-o"):
        demo()


@pytest.mark.parametrize(
    ("stop_at", "again"),
    [
        ("convert", [*FIRST, "train", "train", "train"]),
        ("fingerprint", [*FIRST[1:], "train", "train", "train"]),
        ("plan_experiment", [*FIRST[1:], "train", "train", "train"]),
        ("preprocess ", ["preprocess", "train", "train", "train"]),
        (TRAINERS[0], ["train", "train", "train"]),
        (TRAINERS[1], ["train", "train"]),
        (TRAINERS[2], ["train"]),
        ("nnunet_nacl predict", []),
    ],
)
def test_an_interrupted_run_is_resumed(demo, nnunet, stop_at, again):
    nnunet.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        demo()
    nnunet.waves.clear()
    nnunet.predicted.clear()
    demo()
    assert kinds(nnunet.commands) == again and len(nnunet.predicted) == 1
    continued = [command for command in nnunet.commands if command.endswith("--c")]
    assert [stop_at in command for command in continued] == ([True] if stop_at in TRAINERS else [])


def test_a_missing_prediction_is_made_again(demo, nnunet, tmp_path):
    demo()
    nnunet.waves.clear()
    next((tmp_path / "demo").rglob(f"{TRAINERS[1]}*/fold_0/validation/a.npz")).unlink()
    demo()
    assert len(nnunet.commands) == 1 and nnunet.commands[0].endswith("--val") and TRAINERS[1] in nnunet.commands[0]
    calibrated = [command for wave in nnunet.waves for command in wave if " calibrate " in command]
    assert len(calibrated) == 1 and f" -tr {TRAINERS[1]} " in calibrated[0]


def test_the_end_is_the_review_list_of_new_scans_by_a_calibrated_model(demo, nnunet, tmp_path, capsys):
    demo()
    ((predict,),) = nnunet.waves[-1:]
    (asked,) = nnunet.predicted
    assert (asked.tr, asked.p, asked.chk, asked.decide) == (TRAINERS[0], "nnUNetPlans", None, None)
    assert (
        asked.continue_prediction and Path(asked.i).name == "imagesTs" and f"$ {predict}\n" in capsys.readouterr().out
    )
    for i in range(10):  # eleven scans are not predicted in passing
        (tmp_path / f"demo/nnUNet_raw/Dataset090_VirtualBrains/imagesTs/{i}_0000.nii.gz").touch()
    demo()
    *_, last, _, heading, page = capsys.readouterr().out.splitlines()
    assert len(nnunet.predicted) == 1 and last == f"$ {predict}"
    assert heading.startswith("Pages") and page.startswith("  comparison: ")


def test_what_cannot_be_calibrated_is_compared_without(demo, nnunet, capsys):
    nnunet.stop_at, nnunet.exception = f"calibrate -d 90 -c 2d_small -f 0 -tr {TRAINERS[0]}", CommandFailed("too few")
    nnunet.calibrate = lambda arguments: (
        None if arguments.tr == TRAINERS[0] else FakeNnunet.calibrate(nnunet, arguments)
    )
    demo()
    assert nnunet.compared[0].tr[3:] == [f"{trainer}+calibrated+decided" for trainer in TRAINERS[1:]]
    assert "too few\nThe comparison goes on without it." in capsys.readouterr().out
    assert nnunet.predicted[0].tr == TRAINERS[1]


def test_a_failed_command_ends_the_demo(demo, nnunet):
    nnunet.stop_at, nnunet.exception = TRAINERS[1], CommandFailed("its log is ...")
    with pytest.raises(CommandFailed):
        demo()
    assert len(nnunet.waves) == 3  # conversion, preprocessing, the first two trainings


def test_another_configuration_keeps_the_plans(demo, nnunet, tmp_path):
    demo()
    nnunet.waves.clear()
    demo(configuration="3d_fullres", trainers=TRAINERS[:1])
    assert nnunet.commands[0] == "nnUNetv2_preprocess -d 90 -plans_name nnUNetPlans -c 3d_fullres -np 2"
    assert " 90 3d_fullres 0 " in nnunet.commands[1]
    plans = json.loads(next((tmp_path / "demo").rglob("nnUNetPlans.json")).read_text())
    assert "2d_small" in plans["configurations"]


def test_an_unplanned_configuration_is_an_error(demo):
    with pytest.raises(UserError, match="3d_lowres.*2d, 3d_fullres"):
        demo(configuration="3d_lowres")


def test_a_folder_of_other_data_is_refused(demo, tmp_path):
    demo()
    copy = tmp_path / "Task90_VirtualBrains"
    (tmp_path / "demo" / "data" / "Task90_VirtualBrains").rename(copy)
    with pytest.raises(UserError, match="another -o"):
        demo(data=copy)


def test_folds_and_trainers_multiply(demo, nnunet):
    demo(folds=("0", "1"), parallel=2)
    assert [len(wave) for wave in nnunet.waves[2:5]] == [2, 2, 2]
    assert [command.split()[3] for command in nnunet.commands[4:]] == ["0", "0", "0", "1", "1", "1"]
    assert nnunet.compared[0].i[0].endswith("TrueProbabilities__nnUNetPlans__2d_small")  # one document of both


def test_a_demo_folder_with_a_foreign_dataset_is_left_alone(demo, tmp_path):
    foreign = tmp_path / "demo" / "nnUNet_raw" / "Dataset090_VirtualBrains"
    foreign.mkdir(parents=True)
    (foreign / "mine.txt").touch()
    with pytest.raises(UserError, match="was not made here"):
        demo()
    assert (foreign / "mine.txt").exists()
