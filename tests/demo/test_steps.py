"""The steps of the demo with stand-ins for nnU-Net's commands: what is run, what is skipped, what is resumed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_nacl import demo as module
from nnunet_nacl.cli.main import build_parser
from nnunet_nacl.demo import add_small_configuration, run_together
from nnunet_nacl.demo.virtual_brains import BAD
from nnunet_nacl.errors import UserError, termination_as_interrupt
from nnunet_nacl.files import locked
from tests.trainers.plans import make_plans

TRAINERS = [f"nnUNetTrainer{method}_10epochs_100iters_adam" for method in ("DiceCE", "NACL")]
DATASET = "Dataset090_VirtualBrains"
FIRST = ["convert_MSD_dataset", "plan_and_preprocess", "preprocess"]


class FakeNnunet:
    """Leaves the files that nnU-Net's commands would leave."""

    def __init__(self, root: Path):
        self.root, self.dataset = root, DATASET
        self.waves: list[list[str]] = []
        self.compared: list = []
        self.predicted: list = []
        self.stop_at = "nowhere"
        self.exception: BaseException = KeyboardInterrupt()

    @property
    def commands(self) -> list[str]:
        """nnU-Net's."""
        return [command for wave in self.waves for command in wave if "nnUNetv2" in command]

    def __call__(self, commands, environment):
        self.environment = environment
        self.waves.append([shlex.join(command) for command, _ in commands])
        for (program, *arguments), log in commands:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("2 of 4 scans are flagged\n")
            self.interrupted = self.stop_at in shlex.join([program, *arguments])
            if program == "nnunet_nacl":
                args = build_parser(arguments).parse_args(arguments)
                {"compare": self.compared, "predict": self.predicted}.get(arguments[0], []).append(args)
            elif make := getattr(self, program, None):
                make(arguments)
            if self.interrupted:
                self.stop_at = "nowhere"
                raise self.exception

    def place(self, kind, *more):
        return self.root.joinpath(f"nnUNet_{kind}", self.dataset, *more)

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
        self.place("preprocessed", "nnUNetPlans.json").write_text(json.dumps(make_plans()))

    def nnUNetv2_train(self, arguments):
        _, configuration, fold, _, trainer, *_ = arguments
        folder = self.place("results", f"{trainer}__nnUNetPlans__{configuration}", f"fold_{fold}")
        (folder / "validation").mkdir(parents=True, exist_ok=True)
        for name in ("dataset.json", "plans.json"):
            (folder.parent / name).touch()
        assert ("--c" in arguments) == (folder / "checkpoint_latest.pth").is_file()
        (folder / "checkpoint_latest.pth").touch()
        if not self.interrupted:
            (folder / "validation" / "a.npz").touch()
            (folder / "validation" / "summary.json").touch()


@pytest.fixture
def nnunet(monkeypatch, tmp_path):
    fake = FakeNnunet(tmp_path / "demo")
    monkeypatch.setattr(module, "run_together", fake)
    return fake


@pytest.fixture
def demo(tmp_path, monkeypatch, nnunet):
    """Runs `nnunet_nacl demo` on two cores, with stand-ins for the data."""

    monkeypatch.setattr(module, "write_virtual_brains", lambda folder: folder.mkdir(parents=True))
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)

    def run(*arguments):
        words = ["demo", "-o", str(nnunet.root), "-device", "cpu", *arguments]
        module.Demo(build_parser(words).parse_args(words)).run()

    return run


def trainers_of(compared) -> list[str]:
    return [name for flag, name in compared.entries if flag == "-tr"]


def kinds(commands):
    return [command.split("nnUNetv2_")[1].split()[0] for command in commands]


def test_the_stock_commands_run_in_order(demo, nnunet):
    demo()
    assert kinds(nnunet.commands) == [*FIRST, "train", "train"]
    assert [len(wave) for wave in nnunet.waves[:4]] == [1, 1, 1, 2]  # on the CPU trainings share the cores
    assert nnunet.environment["nnUNet_n_proc_DA"] == nnunet.environment["OMP_NUM_THREADS"] == "1"
    (compared,) = nnunet.compared
    assert trainers_of(compared) == [*TRAINERS, *(f"{trainer}+calibrated" for trainer in TRAINERS)]
    splits = json.loads(nnunet.place("preprocessed", "splits_final.json").read_text())
    assert [sorted(fold["val"]) for fold in splits].count(["a"]) == 1 and len(splits) == 5


def test_a_second_demo_in_the_folder_and_a_foreign_data_set_are_refused(demo, nnunet):
    with locked(nnunet.root / ".lock", "taken"), pytest.raises(UserError, match="another demo.*-o"):
        demo()
    nnunet.place("raw").mkdir(parents=True)
    with pytest.raises(UserError, match="was not made by.*another -o"):
        demo()
    assert nnunet.place("raw").exists()
    with pytest.raises(UserError, match="TaskNN_Name"):
        demo("--data", "/nowhere/Task01_None")


@pytest.mark.parametrize(
    ("stop_at", "again"),
    [
        ("convert", [*FIRST, "train", "train"]),
        (f"train {DATASET} 2d_small 0 -tr {TRAINERS[1]}", ["train"]),
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
    assert (asked.tr, asked.chk, Path(asked.i).name) == (TRAINERS[0], None, "imagesTs")
    assert asked.bad == nnunet.compared[-1].bad == [*BAD]


def test_what_cannot_be_calibrated_is_compared_without(demo, nnunet, capsys):
    nnunet.stop_at = f"calibrate -d {DATASET} -c 2d_small -f 0 -tr {TRAINERS[0]}"
    nnunet.exception = UserError("few")
    demo()
    assert trainers_of(nnunet.compared[0])[2:] == [f"{trainer}+calibrated" for trainer in TRAINERS[1:]]
    assert "few\nThe comparison goes on without it." in capsys.readouterr().out
    assert nnunet.predicted[0].tr == TRAINERS[1]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_commands_run_at_the_same_time_and_append_to_their_logs(tmp_path):
    code = (
        "import pathlib, time\npathlib.Path({mine!r}).touch()\nend = time.time() + 20\n"
        "while not pathlib.Path({other!r}).exists():\n    assert time.time() < end\n    time.sleep(0.02)\nprint('ok')"
    )
    a, b, log = str(tmp_path / "a"), str(tmp_path / "b"), tmp_path / "logs" / "log"
    run_together([(python(code.format(mine=x, other=y)), log) for x, y in ((a, b), (b, a))], dict(os.environ))
    assert log.read_text() == "ok\nok\n"


def group_ends(pid: int) -> bool:
    for _ in range(200):
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


_WITH_WORKER = (
    "import os, pathlib, subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "path = pathlib.Path({pid!r})\npath.with_suffix('.new').write_text(str(os.getpid()))\n"
    "os.replace(path.with_suffix('.new'), path)\ntime.sleep(60)\n"
)


def test_if_one_fails_its_log_is_shown_and_the_others_and_their_workers_are_stopped(tmp_path):
    pid = str(tmp_path / "pid")
    waits = f"import pathlib, time\nwhile not pathlib.Path({pid!r}).exists(): time.sleep(0.02)\n"
    failing = waits + "print('line 39.'); raise SystemExit(3)"
    with pytest.raises(UserError, match=r"(?s)status 3.*\$ .* -c .*2\.log.*line 39\."):
        started = (python(_WITH_WORKER.format(pid=pid)), tmp_path / "1.log"), (python(failing), tmp_path / "2.log")
        run_together(started, dict(os.environ))
    assert group_ends(int(Path(pid).read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_stops_the_commands_and_goes_on(tmp_path, number, request):
    # a shell that starts pytest in the background lets it ignore Ctrl-C
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pid = tmp_path / "pid"

    def interrupt():
        while not pid.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), termination_as_interrupt():
        run_together([(python(_WITH_WORKER.format(pid=str(pid))), tmp_path / "log")], dict(os.environ))
    thread.join()
    assert group_ends(int(pid.read_text()))


def test_nnunet_builds_the_small_network_and_all_else_is_the_parents(tmp_path):
    path = tmp_path / "nnUNetPlans.json"
    path.write_text(json.dumps(make_plans(3)))
    add_small_configuration(path, "3d_fullres")
    manager = PlansManager(str(path))
    small, planned = (manager.get_configuration(f"3d_fullres{ending}") for ending in ("_small", ""))
    assert small.batch_size == 2
    features = planned.network_arch_init_kwargs["features_per_stage"]
    assert small.network_arch_init_kwargs["features_per_stage"] == [max(1, round(width * 3 / 8)) for width in features]
    for name in ("data_identifier", "patch_size", "spacing"):
        assert getattr(small, name) == getattr(planned, name)
