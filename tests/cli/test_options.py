"""The number of cases at a time."""

from __future__ import annotations

import pytest

from nnunet_nacl.cli.main import main
from nnunet_nacl.cli.options import number_of_processes
from nnunet_nacl.errors import UserError


@pytest.mark.parametrize(("variable", "cores", "expected"), [("3", 16, 3), (" 3 ", 16, 3), (None, 2, 2), (None, 64, 8)])
def test_the_default_is_nnunets_or_the_cores(monkeypatch, variable, cores, expected):
    if variable is None:
        monkeypatch.delenv("nnUNet_def_n_proc", raising=False)
    else:
        monkeypatch.setenv("nnUNet_def_n_proc", variable)
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    assert number_of_processes(None) == expected and number_of_processes(5) == 5
    with pytest.raises(UserError, match="-np must be at least 1, got 0"):
        number_of_processes(0)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("nnUNet_def_n_proc", "many", "must be a whole number of at least 1, got 'many'."),
        ("nnUNet_def_n_proc", "", "must be a whole number of at least 1, got ''."),
        ("nnUNet_def_n_proc", "²", "must be a whole number"),
        ("nnUNet_def_n_proc", "0", "must be at least 1, got 0."),
        ("nnUNet_n_proc_DA", "x", "must be a whole number of at least 0, got 'x'."),
        ("nnUNet_nps", "-1", "must be at least 0, got -1."),
    ],
)
def test_what_nnunet_could_not_read_is_one_line(monkeypatch, capsys, variable, value, words):
    monkeypatch.setenv(variable, value)
    assert main("predict -i scans -o out -m model".split()) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"nnunet_nacl predict: error: {variable} {words}")
