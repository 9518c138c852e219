"""The demo's commands: side by side, stopped together; folders of others; and its small network."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_nacl.demo import steps
from nnunet_nacl.demo.plan import plan_demo
from nnunet_nacl.demo.processes import LoggedCommand, run_together
from nnunet_nacl.demo.small_configuration import add_small_configuration
from nnunet_nacl.demo.steps import Demo
from nnunet_nacl.utilities.errors import UserError, termination_as_interrupt
from nnunet_nacl.utilities.files import locked
from tests.trainers.plans import make_plans


def test_a_second_demo_in_the_folder_and_a_foreign_data_set_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "write_virtual_brains", lambda folder: folder.mkdir(parents=True))

    def demo(data=None):
        Demo(plan_demo(str(tmp_path / "demo"), data=data, device="cpu")).run()

    with (
        locked(tmp_path / "demo" / ".lock", "taken"),
        pytest.raises(UserError, match="another demo.*output"),
    ):
        demo()
    theirs = tmp_path / "demo" / "nnUNet_raw" / "Dataset090_VirtualBrains"
    theirs.mkdir(parents=True)
    with pytest.raises(UserError, match="was not made by.*another output"):
        demo()
    assert theirs.exists()
    for name in ("environment.sh", "commands.sh"):
        mine = tmp_path / "demo" / name
        mine.write_text("mine")
        with pytest.raises(
            UserError,
            match=f"{name} was not made by this demo, and would be lost; give another output",
        ):
            demo()
        assert mine.read_text() == "mine"
        mine.unlink()
    with pytest.raises(UserError, match="TaskNN_Name"):
        demo("/nowhere/Task01_None")


def python(code: str, log: Path) -> LoggedCommand:
    return LoggedCommand((sys.executable, "-c", code), log)


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
        working = python(_WITH_WORKER.format(pid=pid), tmp_path / "1.log")
        run_together([working, python(failing, tmp_path / "2.log")], dict(os.environ))
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
        run_together(
            [python(_WITH_WORKER.format(pid=str(pid)), tmp_path / "log")], dict(os.environ)
        )
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
    assert small.network_arch_init_kwargs["features_per_stage"] == [
        max(1, round(width * 3 / 8)) for width in features
    ]
    for name in ("data_identifier", "patch_size", "spacing"):
        assert getattr(small, name) == getattr(planned, name)


def test_the_bar_counts_epochs_and_then_the_cases_of_the_validation_that_runs(
    tmp_path, monkeypatch
):
    plan = plan_demo(str(tmp_path), trainers=["nnUNetTrainerNACL_3epochs"], device="cpu")
    plan.preprocessed.mkdir(parents=True)
    splits = [{"train": ["a", "b"], "val": ["c", "d", "e"]}]
    (plan.preprocessed / "splits_final.json").write_text(json.dumps(splits))
    epoch = "2026-01-01: Epoch {}\n2026-01-01: Epoch time: 1.0 s\n"
    stopped = "2026-01-01: Training done. \n2026-01-01: predicting c \n2026-01-01: predicting d \n"
    contents = [
        "".join(map(epoch.format, range(2))),
        epoch.format(2) + stopped,
        "2026-01-01: Training done. \n2026-01-01: predicting c \n",
        "2026-01-01: predicting d \n",
    ]
    shown = []

    def run(commands, environment, while_waiting):
        [command] = commands
        command.log.parent.mkdir(parents=True)
        for content in contents:
            with open(command.log, "a") as log:
                log.write(content)
            while_waiting()

    class Bar(steps.tqdm):
        def update(self, n=1):
            super().update(n)
            shown.append((self.desc, self.n, self.total))

    monkeypatch.setattr(steps, "run_together", run)
    monkeypatch.setattr(steps, "tqdm", Bar)
    Demo(plan).train()
    assert shown == [
        ("training", 2, 3),
        ("training", 3, 3),
        ("nnU-Net validates", 2, 3),
        ("nnU-Net validates", 1, 3),
        ("nnU-Net validates", 2, 3),
    ]
    assert "-tr nnUNetTrainerNACL_3epochs" in (tmp_path / "commands.sh").read_text()


def test_networks_without_a_dice_term_are_tuned_and_what_they_gain_is_shown(
    tmp_path, monkeypatch, capsys
):
    trainers = ["nnUNetTrainer", "nnUNetTrainerDiceNACL", "nnUNetTrainerNACL_3epochs"]
    plan = plan_demo(str(tmp_path), trainers=trainers, device="cpu")
    tuned = []

    def run(commands, environment):
        [command] = commands
        command.log.parent.mkdir(parents=True, exist_ok=True)
        command.log.write_text(
            "structure value\ncore Dice\nall structures mean Dice 40\ncore: argmax is as good\n"
        )
        tuned.append(command.words)

    monkeypatch.setattr(steps, "run_together", run)
    Demo(plan)._tune(trainers)
    [words] = tuned
    assert words[:2] == ("nnunet_nacl", "tune") and "nnUNetTrainerNACL_3epochs" in words
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:] == ["   core: argmax is as good"]
