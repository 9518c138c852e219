"""Help that fits a screen, and the whole of it."""

from __future__ import annotations

import argparse
from importlib import import_module

import pytest

from nnunet_nacl.cli.brief_help import add_brief_help
from nnunet_nacl.cli.main import SUBCOMMANDS, build_parser, main

COMMON = {
    name: module.COMMON_FLAGS
    for name, module in ((name, import_module(SUBCOMMANDS[name])) for name in SUBCOMMANDS)
    if hasattr(module, "COMMON_FLAGS")
}


def printed_by(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    output, error = capsys.readouterr()
    assert stop.value.code == 0 and not error
    return output


def screen_lines(text: str, width: int = 80) -> int:
    """Lines on a terminal, which breaks long ones."""
    return sum(max(1, -(-len(line) // width)) for line in text.splitlines())


@pytest.mark.parametrize("name", COMMON)
def test_it_fits_a_screen(name: str, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    printed = printed_by(capsys, name, "-h")
    assert screen_lines(printed) <= 45
    assert printed == printed_by(capsys, name, "--help")
    assert all(f"\n  {flag} " in printed or f"\n  {flag}\n" in printed for flag in (*COMMON[name], "--help-all"))
    assert "\nexamples:\n" in printed


@pytest.mark.parametrize("name", COMMON)
def test_the_whole_help_has_every_option_and_explanation(name: str, capsys) -> None:
    printed = printed_by(capsys, name, "--help-all")
    parser = build_parser([name])._subparsers._group_actions[0].choices[name]
    assert printed == parser.format_help()
    assert set(COMMON[name]) < set(parser._option_string_actions)
    assert all(
        f"  {'/'.join(action.option_strings[:1])}" in printed for action in parser._actions if action.option_strings
    )
    assert all(part in printed for part in import_module(SUBCOMMANDS[name])._EPILOG.split("\n\n"))


def test_what_must_be_given_and_a_choice_stand_in_the_usage(capsys) -> None:
    parser = argparse.ArgumentParser(
        prog="thing", add_help=False, description="Does\na thing.\n\nIn detail.", epilog="e"
    )
    add_brief_help(parser, ["-a", "-d"])
    parser.add_argument("place", nargs="?")
    parser.add_argument("-a", required=True)
    parser.add_argument("-b", required=True, help="not shown below")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("-c")
    group.add_argument("-d")
    with pytest.raises(SystemExit):
        parser.parse_args(["-h"])
    printed = capsys.readouterr().out
    assert printed.startswith("usage: thing -a A -b B (-c C | -d D) [place] [options]\n\nDoes a thing.\n\n")
    assert "In detail" not in printed and "not shown below" not in printed and "\n  -d D" in printed


def test_help_that_is_asked_for_by_a_wrong_name_is_found(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--help_all"])
    assert "did you mean --help-all?" in capsys.readouterr().err
