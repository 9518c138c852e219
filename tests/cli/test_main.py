"""The command line as a whole."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from nnunet_nacl.cli import main as cli
from nnunet_nacl.utilities.errors import UserError
from tests.processes import run_warm
from tests.runs.folders import write_json


def subcommand(run) -> SimpleNamespace:
    def configure(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("-n", nargs="+")

    return SimpleNamespace(HELP="does a thing", configure=configure, run=run)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Replaces all subcommands by one named `thing`."""

    def replace(run) -> None:
        monkeypatch.setattr(cli, "SUBCOMMANDS", {"thing": "a.module"})
        monkeypatch.setattr(cli, "import_module", lambda name: subcommand(run))

    return replace


@pytest.mark.parametrize("name", sorted(cli.SUBCOMMANDS))
def test_examples_are_of_the_subcommand_and_its_listed_options(name: str, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main([name, "-h"])
    parser = argparse.ArgumentParser()
    import_module(cli.SUBCOMMANDS[name]).configure(parser)
    printed = capsys.readouterr().out
    assert printed.count("\n") <= 45
    lines = [line.partition("  # ")[0].split() for line in printed.splitlines()]
    examples = [
        line[line.index("nnunet_nacl") + 1 :] for line in lines if "nnunet_nacl" in line[:2]
    ]
    assert examples
    for subcommand, *words in examples:
        assert subcommand == name
        assert {word for word in words if word[0] == "-"} <= set(parser._option_string_actions)


def test_without_arguments_the_help_is_shown(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    alone = capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["-h"])
    assert ended.value.code == 0 and not alone.err
    assert alone.out == capsys.readouterr().out and "calibrate" in alone.out


LONG = "/scans/" + "x" * 5000


@pytest.mark.parametrize(
    "error, said",
    [
        (UserError("use x instead of y"), "use x instead of y"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "x\ny"),
            "x\\ny: No such file; correct the path.",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", LONG),
            f"{LONG[:150]}...{LONG[-148:]}: File name too ",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "No space left on device; free some space.",
        ),
    ],
)
def test_a_users_mistake_is_one_line(
    only, error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise error

    only(fail)
    assert cli.main(["thing"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"nnunet_nacl thing: error: {said}") and len(line) < 500


UNPRINTABLE = "\x1b[31m \r \x07 \x7f \x9b \u061c \u200b \u200f \u202e \u2066 \u2069 \u2028 \ud800"


def test_what_would_steer_a_terminal_is_shown_and_not_obeyed(only, capfd) -> None:
    def run(args: argparse.Namespace) -> int:
        for stream in (sys.stdout, sys.stderr):
            print(f"liver {UNPRINTABLE}\n\tÄ 肝 😀", file=stream)
            with tqdm(total=2, desc="scans", file=stream) as bar:
                bar.update(2)
        return 0

    only(run)
    assert cli.main(["thing"]) == 0
    for text in capfd.readouterr():
        line, names, *bar = text.split("\n")
        assert (
            line == "liver " + UNPRINTABLE.encode("unicode_escape").decode()
            and names == "\tÄ 肝 😀"
        )
        assert bar[0].count("\r") >= 2 and bar[0].split("\r")[-1].startswith("scans: 100%")


def test_a_pipe_is_not_waited_for(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    content = {
        "labels": {"background": 0, "liver": 1},
        "file_ending": ".nii.gz",
        "channel_names": {"0": "CT"},
    }
    for folder in (tmp_path / "scans", tmp_path / "model"):
        (folder / "fold_0").mkdir(parents=True)
        write_json(folder / "dataset.json", content)
        write_json(folder / "plans.json", {"dataset_name": "Dataset001_Liver"})
    (tmp_path / "scans" / "case.npz").touch()
    for folder in (tmp_path, tmp_path / "model" / "fold_0"):
        os.mkfifo(folder / "PIPE")
    for command in (
        "predict -i scans -o out -m model -chk PIPE",
        "review -i scans -o out -map PIPE",
    ):
        ended = run_warm(cli.main, command.split(), folder=tmp_path, timeout_s=60)
        assert (
            ended.returncode == 2
            and "PIPE: " in ended.stderr
            and "a pipe or device, not a file" in ended.stderr
        )


def test_a_mistake_of_ours_keeps_its_traceback_and_an_interruption_says_so(only, capsys) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt if args.n else ValueError("a bug")

    only(fail)
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["thing"])
    assert cli.main(["thing", "-n", "1"]) == 130 and "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["doctor", "--path"], ["--help"], ["trainers"]])
def test_light_commands_import_no_torch(argv: list[str]) -> None:
    code = (
        "import sys; from nnunet_nacl.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.exit(int('torch' in sys.modules or 'nnunetv2' in sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code, *argv], stdout=subprocess.DEVNULL).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("calibrat -d 4", "there is no subcommand calibrat; did you mean calibrate?"),
        (
            "review -i in -o out -overwrite",
            "there is no flag -overwrite; did you mean --overwrite?",
        ),
        ("review -i in -o out -output=x", "there is no flag -output"),  # no value of a shorter one
    ],
)
def test_a_subcommand_or_flag_that_there_is_not_is_answered_by_one_that_there_is(
    command, said, capsys
):
    with pytest.raises(SystemExit):
        cli.main(command.split())
    assert said in capsys.readouterr().err
