"""The steps of the demo with stand-ins for nnU-Net's commands: what is run, what is skipped, what is resumed."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import time
from pathlib import Path

import pytest

from nnunet_nacl.cli.main import build_parser
from nnunet_nacl.demo import steps as module
from nnunet_nacl.demo.training_settings import add_small_configuration, with_schedule
from nnunet_nacl.demo.virtual_brains import BAD
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import locked
from nnunet_nacl.registration.health import Check
from nnunet_nacl.shell_commands import CommandFailed
from tests.trainers.plans import make_plans

SCHEDULE = ["-epochs", "2", "-iters", "3"]
TRAINERS = [f"nnUNetTrainer{method}_2epochs_3iters_adam" for method in ("DiceCE", "CE", "NACL")]
DATASET = "Dataset090_VirtualBrains"
FIRST = ["convert_MSD_dataset", "plan_and_preprocess", "preprocess"]


def parse(arguments):
    """The arguments as our own command reads them."""
    if arguments[0] != "compare":
        return build_parser(arguments).parse_args(arguments)
    parser = argparse.ArgumentParser()
    for name in ("-d", "-f", "-tr", "-i", "-unranked", "-bad"):
        parser.add_argument(name, nargs="+")
    for name in ("-c", "-o"):
        parser.add_argument(name, required=True)
    return parser.parse_args(arguments[1:])


class FakeNnunet:
    """Leaves the files that nnU-Net's commands would leave."""

    def __init__(self):
        self.waves: list[list[str]] = []
        self.environment: dict[str, str] = {}
        self.evaluated: list[str] = []
        self.compared: list = []
        self.predicted: list = []
        self.stop_at: str | None = None
        self.dataset = DATASET
        self.exception: BaseException = KeyboardInterrupt()
        self.training_s = 0.0

    @property
    def commands(self) -> list[str]:
        """nnU-Net's."""
        return [command for wave in self.waves for command in wave if "nnUNetv2" in command]

    def __call__(self, commands, environment, *, on_poll):
        self.environment = dict(environment)
        self.waves.append([shlex.join(command) for command, _ in commands])
        for (program, *arguments), log in commands:
            self.interrupted = self.stop_at is not None and self.stop_at in shlex.join([program, *arguments])
            if program == "nnunet_nacl":
                getattr(self, arguments[0])(parse(arguments))
            else:
                getattr(self, program)(arguments)
            if program == "nnUNetv2_train":
                log.parent.mkdir(exist_ok=True)
                log.write_text("now: Epoch 0 \nnow: Epoch time: 1.0 s\nnow: Epoch 1 \nnow: Epoch time: 1.0 s\n")
                time.sleep(self.training_s)
            on_poll()
            if self.interrupted:
                self.stop_at = None
                raise self.exception

    def place(self, kind, *more):
        return Path(self.environment[f"nnUNet_{kind}"], self.dataset, *more)

    def nnUNetv2_convert_MSD_dataset(self, arguments):
        for part in ("imagesTr", "labelsTr", "imagesTs"):
            self.place("raw", part).mkdir(parents=True)  # like nnU-Net, fails if it is there
        self.place("raw", "imagesTs", "new_0000.nii.gz").touch()
        for case in "abcde":
            self.place("raw", "labelsTr", f"{case}.nii.gz").touch()
        if not self.interrupted:
            self.place("raw", "dataset.json").touch()

    def nnUNetv2_plan_and_preprocess(self, arguments):
        self.place("preprocessed").mkdir(exist_ok=True)
        plans = make_plans()
        plans["configurations"]["3d_fullres"] = make_plans(3)["configurations"]["3d_fullres"]
        self.place("preprocessed", "nnUNetPlans.json").write_text(json.dumps(plans))

    def nnUNetv2_preprocess(self, arguments):
        pass

    def nnUNetv2_train(self, arguments):
        _, configuration, fold, _, trainer, *_ = arguments
        folder = self.place("results", f"{trainer}__nnUNetPlans__{configuration}", f"fold_{fold}")
        (folder / "validation").mkdir(parents=True, exist_ok=True)
        for name in ("dataset.json", "plans.json", "calibration.json"):
            (folder.parent / name).touch()
        assert ("--c" in arguments) == (folder / "checkpoint_latest.pth").is_file()
        (folder / "checkpoint_latest.pth").touch()
        if not self.interrupted:
            (folder / "validation" / "a.npz").touch()
            (folder / "validation" / "summary.json").touch()

    def evaluate(self, arguments):
        assert (arguments.dilated, arguments.boundary) == (4, 4)
        self.evaluated.append(arguments.tr if arguments.d else arguments.i.name)

    def calibrate(self, arguments):
        pass

    def predict(self, arguments):
        self.predicted.append(arguments)

    def compare(self, arguments):
        self.compared.append(arguments)
        Path(arguments.o).mkdir(parents=True, exist_ok=True)
        names = [*arguments.tr, *(arguments.i or [])]
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
    """Runs `nnunet_nacl demo` on two cores, with stand-ins for the data."""

    def write(folder):
        for part in ("imagesTr", "labelsTr", "imagesTs", "probabilitiesTr"):
            (folder / part).mkdir(parents=True)
        for name in "abcde":
            (folder / "labelsTr" / f"{name}.nii.gz").touch()
            (folder / "probabilitiesTr" / f"{name}.npz").touch()
        description = {"labels": {}, "modality": {}, "training": [], "test": []}
        (folder / "dataset.json").write_text(json.dumps(description))
        return folder

    monkeypatch.setattr(module, "write_virtual_brains", write)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)

    def run(*arguments, folder=tmp_path / "demo"):
        words = ["demo", "-o", str(folder), "-device", "cpu", *SCHEDULE, *arguments]
        module.Demo(build_parser(words).parse_args(words)).run()
        return folder / "comparison" / f"{DATASET}__2d_small"

    return run


def kinds(commands):
    return [command.split("nnUNetv2_")[1].split()[0] for command in commands]


def test_the_stock_commands_run_in_order_and_are_shown(demo, nnunet, capsys):
    nnunet.training_s = 0.2  # no bar is drawn more often
    folder = demo()
    assert kinds(nnunet.commands) == [*FIRST, "train", "train", "train"]
    assert nnunet.commands[1] == "nnUNetv2_plan_and_preprocess -d 90 -npfp 2 --no_pp --verify_dataset_integrity"
    assert nnunet.commands[3] == f"nnUNetv2_train {DATASET} 2d_small 0 -tr {TRAINERS[0]} --npz -device cpu"
    captured = capsys.readouterr()
    for command in (command for wave in nnunet.waves for command in wave):
        assert f"$ {command}\n" in captured.out
    assert "$ export nnUNet_raw=" in captured.out and "not patients" in captured.out
    assert f"  comparison: {folder / 'report.html'}" in captured.out
    assert all(f" {epochs}/6 " in captured.err for epochs in (0, 2, 4))  # two epochs of three trainers
    splits = json.loads(nnunet.place("preprocessed", "splits_final.json").read_text())
    assert [sorted(fold["val"]) for fold in splits].count(["a"]) == 1 and len(splits) == 5


def test_other_data_have_no_truth_and_need_no_evaluation(demo, nnunet, tmp_path):
    demo()
    shutil.rmtree(tmp_path / "demo" / "data" / "Task90_VirtualBrains" / "probabilitiesTr")
    nnunet.waves.clear()
    demo()
    assert [wave[0].split()[1] for wave in nnunet.waves] == ["compare", "predict"] and nnunet.compared[-1].i is None


def test_on_the_cpu_trainings_share_the_cores(demo, nnunet):
    demo()
    assert [len(wave) for wave in nnunet.waves[:4]] == [1, 1, 1, 3]
    assert nnunet.environment["nnUNet_n_proc_DA"] == nnunet.environment["OMP_NUM_THREADS"] == "1"
    demo("-f", "1", "-tr", TRAINERS[0])
    assert nnunet.environment["OMP_NUM_THREADS"] == "2"


def test_on_a_gpu_the_stock_configuration_is_used_one_training_at_a_time(demo, nnunet):
    demo("-device", "cuda")
    assert nnunet.waves[3] == [f"nnUNetv2_train {DATASET} 2d 0 -tr {TRAINERS[0]} --npz -device cuda"]
    assert "nnUNet_n_proc_DA" not in nnunet.environment
    plans = json.loads(nnunet.place("preprocessed", "nnUNetPlans.json").read_text())
    assert set(plans["configurations"]) == {"2d", "3d_fullres"}


def test_a_second_demo_in_the_folder_is_refused(demo, tmp_path):
    with locked(tmp_path / "demo" / ".lock", "taken"), pytest.raises(UserError, match="another demo.*-o"):
        demo()


@pytest.mark.parametrize(
    ("stop_at", "again"),
    [
        ("convert", [*FIRST, "train", "train", "train"]),
        ("plan_and", [*FIRST[1:], "train", "train", "train"]),
        (f"train {DATASET} 2d_small 0 -tr {TRAINERS[1]}", ["train", "train"]),
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
    assert kinds(nnunet.commands) == again
    assert [command for command in nnunet.commands if command.endswith("--c")] == (
        nnunet.commands[:1] if "train" in stop_at else []
    )
    (asked,) = nnunet.predicted
    assert (asked.tr, asked.chk, asked.decide, Path(asked.i).name) == (TRAINERS[0], None, None, "imagesTs")
    assert asked.continue_prediction and asked.find is asked.findings is None
    assert asked.bad == nnunet.compared[-1].bad == [*BAD]


def test_what_cannot_be_calibrated_is_compared_without(demo, nnunet, capsys):
    nnunet.stop_at, nnunet.exception = (
        f"calibrate -d {DATASET} -c 2d_small -f 0 -tr {TRAINERS[0]}",
        CommandFailed("few"),
    )
    demo()
    assert nnunet.compared[0].tr[3:] == [f"{trainer}+calibrated" for trainer in TRAINERS[1:]]
    assert "few\nThe comparison goes on without it." in capsys.readouterr().out
    assert nnunet.predicted[0].tr == TRAINERS[1]


def test_another_configuration_keeps_the_plans(demo, nnunet):
    demo()
    nnunet.waves.clear()
    demo("-c", "3d_fullres")
    assert nnunet.commands[0] == "nnUNetv2_preprocess -d 90 -c 3d_fullres -np 2"
    assert f" {DATASET} 3d_fullres 0 " in nnunet.commands[1]
    assert "2d_small" in json.loads(nnunet.place("preprocessed", "nnUNetPlans.json").read_text())["configurations"]


def test_a_folder_of_other_data_is_refused(demo, tmp_path):
    demo()
    copy = tmp_path / "Task90_VirtualBrains"
    (tmp_path / "demo" / "data" / "Task90_VirtualBrains").rename(copy)
    with pytest.raises(UserError, match="another -o"):
        demo("--data", str(copy))


def test_a_foreign_data_set_in_the_folder_is_left_alone(demo, tmp_path):
    foreign = tmp_path / "demo" / "nnUNet_raw" / DATASET
    foreign.mkdir(parents=True)
    with pytest.raises(UserError, match="was not made from.*another -o"):
        demo()
    assert foreign.exists()


def test_data_sets_share_a_folder(demo, nnunet, tmp_path):
    demo()
    nnunet.waves.clear()
    task = module.write_virtual_brains(tmp_path / "Task91_Others")
    nnunet.dataset = "Dataset091_Others"
    demo("--data", str(task))
    assert nnunet.predicted[-1].bad == nnunet.compared[-1].bad == ["0.8"]
    assert kinds(nnunet.commands) == [*FIRST, "train", "train", "train"]


def test_folds_and_trainers_multiply(demo, nnunet):
    demo("-f", "0", "1", "-np", "2", "-tr", "nnUNetTrainer", "nnUNetTrainerNACL", "nnUNetTrainerNACL")
    assert [len(wave) for wave in nnunet.waves[3:5]] == [2, 2]
    assert [command.split()[3] for command in nnunet.commands[3:]] == ["0", "0", "1", "1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-np", "0"], "-np must be at least 1, received 0"),
        (["-epochs", "0"], "-epochs"),
        (["-tr", "nnUNetTrainerNACL_wrong"], "wrong"),
        (["-tr", "nope"], "nope: nnU-Net finds no such trainer"),
        (["-tr", "nnUNetTrainerNACk"], "did you mean nnUNetTrainerNACL"),
        (["-c", "3d_lowres_small"], "3d_lowres.*2d, 3d_fullres"),
        (["--data", "/nowhere/Task01_None"], "there is no task folder"),
        (["--download", "Task99_Foot"], "Task99_Foot"),
    ],
)
def test_bad_options_are_errors_that_name_them(demo, arguments, message):
    with pytest.raises(UserError, match=message):
        demo(*arguments)


def test_without_nnunet_the_error_says_what_to_do(demo, monkeypatch):
    missing = Check("FAIL", "nnU-Net", "not installed", "install it")
    monkeypatch.setattr("nnunet_nacl.registration.health.check_nnunet", lambda: (missing, None))
    with pytest.raises(UserError, match="nnU-Net: not installed; install it"):
        demo("-tr", "nnUNetTrainerUnknown")


@pytest.mark.parametrize(
    ("given", "run"),
    [
        ("nnUNetTrainer", "nnUNetTrainerDiceCE_40epochs_50iters_adam"),
        ("nnUNetTrainerNACL_lambda0p2_l2", "nnUNetTrainerNACL_lambda0p2_l2_40epochs_50iters_adam"),
        ("nnUNetTrainerNACL_train50", "nnUNetTrainerNACL_40epochs_50iters_adam_train50"),
        ("nnUNetTrainerNACL_7epochs", "nnUNetTrainerNACL_7epochs"),
        ("nnUNetTrainerNACL_adam", "nnUNetTrainerNACL_adam"),
        ("nnUNetTrainer_5epochs", "nnUNetTrainer_5epochs"),
        ("nnUNetTrainerDiceCELoss", "nnUNetTrainerDiceCELoss"),
    ],
)
def test_names_without_a_schedule_get_the_demos(given, run):
    assert with_schedule(given, 40, 50, True) == run


@pytest.mark.parametrize("parent", ["2d", "3d_fullres"])
def test_nnunet_builds_the_small_network_and_all_else_is_the_parents(tmp_path, parent):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans, path = make_plans(2 if parent == "2d" else 3), tmp_path / "nnUNetPlans.json"
    plans["configurations"][parent]["batch_size"] = 281
    path.write_text(json.dumps(plans))
    add_small_configuration(path, parent)
    small, planned = (PlansManager(str(path)).get_configuration(name) for name in (f"{parent}_small", parent))
    assert small.batch_size == (16 if parent == "2d" else 2)
    features = planned.network_arch_init_kwargs["features_per_stage"]
    assert small.network_arch_init_kwargs["features_per_stage"] == [max(1, round(width * 3 / 8)) for width in features]
    for name in ("data_identifier", "patch_size", "spacing"):
        assert getattr(small, name) == getattr(planned, name)
