"""Commands: shown as typed, logged, run side by side, stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from nnunet_nacl import shell_commands
from nnunet_nacl.errors import UserError
from nnunet_nacl.shell_commands import CommandFailed, assignments, find_program, run_side_by_side


@pytest.fixture(autouse=True)
def python_is_a_program(monkeypatch):
    monkeypatch.setattr(
        shell_commands, "find_program", lambda name: sys.executable if name == "python" else find_program(name)
    )
    monkeypatch.setattr(shell_commands, "_POLL_S", 0.05)


def python(code: str, log):
    return ["python", "-c", code], log


def test_variables_survive_a_shell():
    values = {"nnUNet_raw": "/a folder/raw", "nnUNet_results": "/b$c"}
    shell = f'export {assignments(values)}; printf \'%s|%s\' "$nnUNet_raw" "$nnUNet_results"'
    printed = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
    assert printed == "/a folder/raw|/b$c"


def test_output_is_appended_to_the_log(tmp_path):
    log = tmp_path / "logs" / "one.log"
    for word in ("first", "second"):
        run_side_by_side([python(f"import os; print('{word}', os.environ['A'])", log)], {"A": "1"})
    text = log.read_text()
    assert text.count("$ python -c") == 2 and "\nfirst 1\n" in text and text.endswith("\nsecond 1\n")


def test_commands_run_at_the_same_time(tmp_path):
    code = (
        "import pathlib, time\npathlib.Path({mine!r}).touch()\nend = time.time() + 20\n"
        "while not pathlib.Path({other!r}).exists():\n    assert time.time() < end\n    time.sleep(0.02)\n"
    )
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    polls: list[int] = []
    commands = [python(code.format(mine=mine, other=other), tmp_path / "log") for mine, other in ((a, b), (b, a))]
    run_side_by_side(commands, {}, on_poll=lambda: polls.append(1))
    assert polls


def test_an_error_names_the_log_and_shows_its_last_lines(tmp_path):
    code = "print('\\n'.join(f'line {i}.' for i in range(40))); raise SystemExit(3)"
    with pytest.raises(CommandFailed) as caught:
        run_side_by_side([python(code, tmp_path / "log")], {})
    message = str(caught.value)
    assert "status 3" in message and str(tmp_path / "log") in message and "$ python -c" in message
    assert "line 39." in message and "line 5." not in message


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


def test_a_missing_program_is_an_error(tmp_path):
    with pytest.raises(UserError, match="nnUNetv2_none.*installed"):
        run_side_by_side([(["nnUNetv2_none"], tmp_path / "log")], {})
