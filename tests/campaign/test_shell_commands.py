"""Commands: shown as typed, logged, run side by side, stopped together."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from multiprocessing import get_context

import pytest

from nnunet_nacl.campaign import shell_commands as commands
from nnunet_nacl.campaign.shell_commands import Command, CommandFailed, export_line, find_program
from nnunet_nacl.errors import UserError


@pytest.fixture(autouse=True)
def python_is_a_program(monkeypatch):
    monkeypatch.setattr(
        commands, "find_program", lambda name: sys.executable if name == "python" else find_program(name)
    )
    monkeypatch.setattr(commands, "_POLL_S", 0.05)


def run_side_by_side(one_each: list[Command], environment: dict[str, str]) -> None:
    """Jobs of one command each."""
    commands.run_side_by_side([[command] for command in one_each], environment)


def python(code: str, log_file, **options) -> Command:
    return Command(("python", "-c", code), log_file, **options)


def test_a_command_is_shown_so_that_a_shell_takes_it(tmp_path):
    command = Command(("nnUNetv2_train", "4", "2d", "my data", "--npz"), tmp_path / "log", {"OMP_NUM_THREADS": "1"})
    assert command.shown() == "OMP_NUM_THREADS=1 nnUNetv2_train 4 2d 'my data' --npz"


def test_exports_survive_a_shell():
    values = {"nnUNet_raw": "/a folder/raw", "nnUNet_results": "/b$c"}
    shell = f'{export_line(values)}; printf \'%s|%s\' "$nnUNet_raw" "$nnUNet_results"'
    printed = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
    assert printed == "/a folder/raw|/b$c"


def test_output_goes_to_the_log(tmp_path):
    log = tmp_path / "logs" / "one.log"
    run_side_by_side(
        [
            python(
                "import os; print(os.environ['A'] + os.environ['B']); print('two')",
                log,
                environment={"B": "2"},
            )
        ],
        {"A": "1"},
    )
    assert log.read_text().endswith("12\ntwo\n") and "$ B=2 python -c" in log.read_text()


def test_a_second_run_is_appended(tmp_path):
    for word in ("first", "second"):
        run_side_by_side([python(f"print('{word}')", tmp_path / "log")], {})
    text = (tmp_path / "log").read_text()
    assert text.count("$ python") == 2 and "\nfirst\n" in text and text.endswith("\nsecond\n")


def test_commands_run_at_the_same_time(tmp_path):
    code = (
        "import pathlib, time\npathlib.Path({mine!r}).touch()\nend = time.time() + 20\n"
        "while not pathlib.Path({other!r}).exists():\n    assert time.time() < end\n    time.sleep(0.02)\n"
    )
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    run_side_by_side(
        [
            python(code.format(mine=a, other=b), tmp_path / "1.log"),
            python(code.format(mine=b, other=a), tmp_path / "2.log"),
        ],
        {},
    )


def test_the_next_command_of_a_job_is_asked_for_when_the_one_before_has_ended(tmp_path):
    printed, started = [], []

    def job():
        for word in ("first", "second"):
            yield python(f"print('{word}')", tmp_path / "1.log")
            printed.append((tmp_path / "1.log").read_text().split()[-1])

    commands.run_side_by_side([job(), iter(())], {}, on_start=started.append)
    assert printed == ["first", "second"] and len(started) == 2


def test_an_error_names_the_log_and_shows_its_last_lines(tmp_path):
    log = tmp_path / "log"
    code = "print('\\n'.join(f'line {i}.' for i in range(40))); raise SystemExit(3)"
    with pytest.raises(CommandFailed) as caught:
        run_side_by_side([python(code, log)], {})
    message = str(caught.value)
    assert "status 3" in message and str(log) in message and "line 39." in message and "line 5." not in message
    assert shlex.join(("python", "-c", code)) in message


def wait_for_group_to_end(pid: int) -> bool:
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


def test_if_one_fails_the_others_and_their_workers_are_stopped(tmp_path):
    pid = tmp_path / "pid"
    failing = (
        f"import pathlib, time\nwhile not pathlib.Path({str(pid)!r}).exists(): time.sleep(0.02)\nraise SystemExit(1)"
    )
    begin = time.monotonic()
    with pytest.raises(CommandFailed, match="status 1"):
        run_side_by_side(
            [python(_WITH_WORKER.format(pid=str(pid)), tmp_path / "1.log"), python(failing, tmp_path / "2.log")], {}
        )
    assert time.monotonic() - begin < 30
    assert wait_for_group_to_end(int(pid.read_text()))


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
    with pytest.raises(KeyboardInterrupt):
        run_side_by_side([python(_WITH_WORKER.format(pid=str(pid)), tmp_path / "log")], {})
    thread.join()
    assert wait_for_group_to_end(int(pid.read_text()))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_is_ignored_as_by_nohup_stays_so(request):
    request.addfinalizer(partial(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP)))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with commands.termination_as_interrupt():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_workers_that_are_forked_meanwhile_end_as_they_would_otherwise():
    started = get_context("fork").Event()
    worker = get_context("fork").Process(target=lambda: started.set() or time.sleep(60))

    def job():
        worker.start()
        assert started.wait(60)
        worker.terminate()
        worker.join()
        yield from ()

    commands.run_side_by_side([job()], {})
    assert worker.exitcode == -signal.SIGTERM


def test_a_missing_program_is_an_error(tmp_path):
    with pytest.raises(UserError, match="nnUNetv2_none.*installed"):
        run_side_by_side([Command(("nnUNetv2_none",), tmp_path / "log")], {})


def test_the_stock_commands_are_found():
    assert os.access(find_program("nnUNetv2_train"), os.X_OK)
