"""Help that fits a screen and has a line for each option."""

from __future__ import annotations

import argparse
from importlib import import_module

import pytest

from nnunet_nacl.cli.main import SUBCOMMANDS, main


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS.keys() - {"campaign", "prepare"}))
def test_it_fits_a_screen_with_a_line_for_each_option(name: str, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as stop:
        main([name, "-h"])
    lines = capsys.readouterr().out.splitlines()
    assert stop.value.code == 0 and len(lines) <= 40 and max(map(len, lines)) <= 120
    assert lines[0].startswith(f"usage: nnunet_nacl {name}") and any("xample" in line for line in lines)
    parser = argparse.ArgumentParser()
    import_module(SUBCOMMANDS[name]).configure(parser)
    for flags in (action.option_strings for action in parser._actions if action.option_strings):
        (line,) = [line for line in lines if line.startswith((f"  {flags[0]} ", f"  {flags[0]},"))]
        assert len(line.split("  ")) > 2, line  # flag and explanation


def test_a_flag_that_is_nearly_right_is_named(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--continue-prediction"])
    assert "did you mean --continue_prediction?" in capsys.readouterr().err
