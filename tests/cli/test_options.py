"""The number of cases at a time."""

from __future__ import annotations

import argparse

import pytest

from nnunet_nacl.cli.options import add_processes, number_of_processes
from nnunet_nacl.errors import UserError


def test_what_is_given_is_taken(monkeypatch):
    monkeypatch.setenv("nnUNet_def_n_proc", "3")
    assert number_of_processes(5) == 5


@pytest.mark.parametrize("given", [0, -2])
def test_less_than_one_is_refused(given):
    with pytest.raises(UserError, match=f"-np must be at least 1, got {given}"):
        number_of_processes(given)


@pytest.mark.parametrize(
    ("variable", "cores", "expected"),
    [
        ("3", 16, 3),
        ("", 2, 2),
        ("", 64, 8),
        ("0", 2, 2),
        ("many", 2, 2),
        ("²", 2, 2),
    ],
)
def test_the_default_is_nnunets_or_the_cores(monkeypatch, variable, cores, expected):
    monkeypatch.setenv("nnUNet_def_n_proc", variable)
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    assert number_of_processes(None) == expected


def test_the_option():
    parser = argparse.ArgumentParser()
    add_processes(parser, "scans at once")
    assert parser.parse_args([]).np is None and parser.parse_args(["-np", "2"]).np == 2
    assert "scans at once (default: nnUNet_def_n_proc" in " ".join(parser.format_help().split())
