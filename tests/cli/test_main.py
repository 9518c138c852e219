"""The command line as a whole."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest

import nnunet_nacl
from nnunet_nacl.cli import main as cli
from nnunet_nacl.errors import UserError


def subcommand(run) -> SimpleNamespace:
    return SimpleNamespace(HELP="does a thing", configure=lambda parser: parser.add_argument("-n"), run=run)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Replaces all subcommands by one named `thing`."""

    def replace(run) -> None:
        monkeypatch.setattr(cli, "SUBCOMMANDS", {"thing": "a.module"})
        monkeypatch.setattr(cli, "import_module", lambda name: subcommand(run))

    return replace


@pytest.mark.parametrize("module", cli.SUBCOMMANDS.values(), ids=cli.SUBCOMMANDS)
def test_every_subcommand_has_a_module_that_explains_itself(module: str) -> None:
    parser = argparse.ArgumentParser()
    import_module(module).configure(parser)
    assert import_module(module).HELP and callable(import_module(module).run)
    assert "example" in parser.format_help()


def test_help_lists_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"\n    {name}" in printed for name in cli.SUBCOMMANDS)


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


def test_arguments_reach_the_subcommand_and_its_status_comes_back(only) -> None:
    only(lambda args: int(args.n))
    assert cli.main(["thing", "-n", "5"]) == 5


@pytest.mark.parametrize("error", [UserError("use x instead of y"), FileNotFoundError(2, "No such file", "x")])
def test_a_users_mistake_is_one_line(only, error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise error

    only(fail)
    assert cli.main(["thing"]) == 2
    assert capsys.readouterr().err == f"nnunet_nacl thing: error: {error}\n"


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


@pytest.mark.parametrize("argv", [["doctor", "--path"], ["--help"]])
def test_light_commands_import_no_torch(argv: list[str]) -> None:
    code = (
        "import sys; from nnunet_nacl.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.exit(int('torch' in sys.modules or 'nnunetv2' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code, *argv], stdout=subprocess.DEVNULL).returncode == 0


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "nnunet_nacl", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f"nnunet_nacl {nnunet_nacl.__version__}\n"


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
