"""The command line as a whole."""

from __future__ import annotations

import argparse
import errno
import json
import os
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
from tqdm import tqdm

import nnunet_nacl
from nnunet_nacl.cli import main as cli
from nnunet_nacl.cli.terminal import report_problems
from nnunet_nacl.errors import UserError, list_problems
from tests.processes import run_warm


def subcommand(run) -> SimpleNamespace:
    def configure(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("-n", nargs="+")
        parser.add_argument("-k", default="")

    return SimpleNamespace(HELP="does a thing", configure=configure, run=run)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Replaces all subcommands by one named `thing`."""

    def replace(run) -> None:
        monkeypatch.setattr(cli, "SUBCOMMANDS", {"thing": "a.module"})
        monkeypatch.setattr(cli, "import_module", lambda name: subcommand(run))

    return replace


def test_help_lists_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"\n    {name}" in printed for name in cli.SUBCOMMANDS)


@pytest.mark.parametrize("name", sorted(cli.SUBCOMMANDS))
def test_help_fits_a_screen_with_a_line_for_each_option(name: str, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "-h"])
    lines = capsys.readouterr().out.splitlines()
    assert stop.value.code == 0 and len(lines) <= 48 and max(map(len, lines)) <= 120
    assert lines[0].startswith(f"usage: nnunet_nacl {name}") and any("xample" in line for line in lines)
    parser = argparse.ArgumentParser()
    import_module(cli.SUBCOMMANDS[name]).configure(parser)
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    for flags in (action.option_strings for action in shown if action.option_strings):
        (line,) = [line for line in lines if line.startswith((f"  {flags[0]} ", f"  {flags[0]},"))]
        assert len(line.split("  ")) > 2, line  # flag and explanation


@pytest.mark.parametrize("name", sorted(cli.SUBCOMMANDS))
def test_examples_are_of_the_subcommand_and_its_listed_options(name: str, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main([name, "-h"])
    parser = argparse.ArgumentParser()
    import_module(cli.SUBCOMMANDS[name]).configure(parser)
    lines = [line.partition("  # ")[0].split() for line in capsys.readouterr().out.splitlines()]
    examples = [line[line.index("nnunet_nacl") + 1 :] for line in lines if "nnunet_nacl" in line[:2]]
    assert examples
    for subcommand, *words in examples:
        assert subcommand == name
        assert {word for word in words if word[0] == "-"} <= set(parser._option_string_actions)


@pytest.mark.parametrize(("typed", "said"), [("calibrat", "did you mean calibrate?"), ("x", "there are calibrate, ")])
def test_a_subcommand_that_there_is_not_is_answered_by_one_that_there_is(typed, said, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([typed, "-d", "4"])
    assert stop.value.code == 2 and f"there is no subcommand {typed}; {said}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("predict -m nosuch -i . -o out", "nosuch: no such folder; give the folder that holds the model, TRAINER__"),
        ("review -i a.nii.gz -o out", "a.nii.gz: is a file; give the folder that holds the predictions."),
        ("evaluate -i a.nii.gz -gt .", "a.nii.gz: is a file; give the folder that holds the predictions."),
        ("calibrate -i a.nii.gz -gt .", "a.nii.gz: is a file; give the folder that holds the images, or the pred"),
        ("predict -d 91 -c 2d -i . -o out", "ID 91; nnUNet_results has Dataset004_Hippocampus. Give one of these."),
    ],
)
def test_a_wrong_path_or_data_set_says_what_to_give(command, said, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "results" / "Dataset004_Hippocampus").mkdir(parents=True)
    (tmp_path / "a.nii.gz").touch()
    monkeypatch.chdir(tmp_path)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / "results"))
    assert cli.main(command.split()) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"nnunet_nacl {nnunet_nacl.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["doctor", "surplus"]])
def test_a_wrong_command_line_is_a_usage_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    assert "usage: nnunet_nacl" in capsys.readouterr().err


LONG = "/scans/" + "x" * 5000


@pytest.mark.parametrize(
    "error, said",
    [
        (UserError("use x instead of y"), "use x instead of y"),
        (PermissionError(errno.EACCES, "Permission denied", "/scans"), "/scans: Permission denied; change its permis"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x\ny"), "x\\ny: No such file; correct the path."),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", LONG),
            f"{LONG[:150]}...{LONG[-148:]}: File name too ",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some space."),
        (OSError("a library's own"), "a library's own; check the path and the disk."),
    ],
)
def test_a_users_mistake_is_one_line(only, error: Exception, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise error

    only(fail)
    assert cli.main(["thing"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"nnunet_nacl thing: error: {said}") and len(line) < 500


UNPRINTABLE = "\x1b[31m \r \x07 \x7f \x9b \u061c \u200b \u200f \u202e \u2066 \u2069 \u2028 \ud800"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_would_steer_a_terminal_is_shown_and_not_obeyed(only, stream: str, capfd) -> None:
    """Wherever a name comes from; line breaks and the progress bar's return are no part of a name."""

    def run(args: argparse.Namespace) -> int:
        print(f"liver {UNPRINTABLE}\n\tÄ 肝 😀", file=getattr(sys, stream))
        with tqdm(total=2, desc="scans", file=getattr(sys, stream)) as bar:
            bar.update(2)
        return 0

    only(run)
    assert cli.main(["thing"]) == 0
    text = getattr(capfd.readouterr(), stream[3:])
    line, names, *bar = text.split("\n")
    assert line == "liver " + UNPRINTABLE.encode("unicode_escape").decode() and names == "\tÄ 肝 😀"
    assert bar[0].count("\r") >= 2 and bar[0].split("\r")[-1].startswith("scans: 100%")


@pytest.mark.parametrize("argv", [["-n", ""], ["-n="], ["-n", "1", " "], ["-k", ""]])
def test_an_empty_argument_is_none(only, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As of a variable of the shell that is not set: as a path it would be the folder that one is in."""
    only(lambda args: 0)
    assert cli.main(["thing", *argv]) == (0 if argv == ["-k", ""] else 2)
    error = capsys.readouterr().err
    assert error.count("\n") <= 1 and ("is empty; give a value" in error or argv == ["-k", ""])


@pytest.mark.parametrize(
    "command",
    [
        "predict -i scans -o out -m model -chk PIPE",
        "review -i scans -o out -map PIPE",
        "calibrate -i scans -gt scans -djfile PIPE",
    ],
)
def test_a_pipe_is_not_waited_for(tmp_path, monkeypatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    content = {"labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}}
    for folder in (tmp_path / "scans", tmp_path / "model" / "fold_0"):
        folder.mkdir(parents=True)
        (folder / "case.npz").touch()
    for folder in (tmp_path / "scans", tmp_path / "model"):
        (folder / "dataset.json").write_text(json.dumps(content))
        (folder / "plans.json").write_text(json.dumps({"dataset_name": "Dataset001_Liver"}))
    for folder in (tmp_path, tmp_path / "model" / "fold_0"):
        os.mkfifo(folder / "PIPE")
    ended = run_warm(cli.main, command.split(), folder=tmp_path, timeout_s=60)
    assert ended.returncode == 2, ended
    assert "PIPE: " in ended.stderr and "a pipe or device, not a file" in ended.stderr


def test_a_mistake_of_ours_keeps_its_traceback(only) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise ValueError("a bug")

    only(fail)
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["thing"])


def test_an_interruption_says_so(only, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    only(interrupt)
    assert cli.main(["thing"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = (
        "import sys; from types import SimpleNamespace as N; from nnunet_nacl.cli import main as cli\n"
        "cli.SUBCOMMANDS = {'thing': 'm'}\n"
        "run = lambda args: print('x' * 1000000) or 0\n"
        "cli.import_module = lambda name: N(HELP='h', configure=lambda p: None, run=run)\n"
        "sys.exit(cli.main(['thing']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("argv", [["doctor", "--path"], ["--help"], ["trainers"]])
def test_light_commands_import_no_torch(argv: list[str]) -> None:
    code = (
        "import sys; from nnunet_nacl.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.exit(int('torch' in sys.modules or 'nnunetv2' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code, *argv], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize(
    "flag, near",
    [
        ("-overwrite", "--overwrite"),
        ("--save-probabilities", "--save_probabilities"),
        ("-tresh", None),
        ("-output=x", None),
    ],
)
def test_a_flag_that_there_is_not_is_no_value_of_a_shorter_one(flag, near, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["review", "-i", "in", "-o", "out", flag])
    error = capsys.readouterr().err
    assert f"there is no flag {flag.partition('=')[0]}" in error and not list(tmp_path.iterdir())
    assert near is None or f"did you mean {near}?" in error


def test_what_is_wrong_in_the_same_way_is_said_three_times_and_every_case_is_named(capsys):
    problems = {f"case_{i:02}": f"preds/case_{i:02}.npz is missing; predict again." for i in range(9)}
    report_problems("evaluate", problems | {"odd": "odd.npz: holds NaN."}, "could not be evaluated")
    lines = capsys.readouterr().err.splitlines()
    assert list_problems(problems | {"odd": "odd.npz: holds NaN."}).split("\n")[1:] == lines[2:]  # as an error ends
    assert lines[1] == "nnunet_nacl evaluate: 10 could not be evaluated:" and len(lines) == 7
    assert lines[2] == "  case_00: preds/case_00.npz is missing; predict again."
    assert lines[5] == "  and 6 more in the same way: case_03, case_04, case_05, case_06, case_07, case_08"
    assert lines[6] == "  odd: odd.npz: holds NaN."
