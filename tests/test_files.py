"""Temporary files, locks that tell whose they are, CSV files that no spreadsheet runs, and JSON
that cannot be used."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import math
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import (
    check_writable,
    from_csv_cell,
    locked,
    remove_leftovers,
    replacing,
    temporary_name,
    to_csv_text,
)
from nnunet_nacl.json_files import read_dict, read_json
from tests.processes import run_warm


def be_killed(folder: Path) -> None:
    with replacing(folder / "image.nii.gz") as name:
        name.write_text("half")
        Path(f"{name}.nii").write_text("on the way to it")
        Path(f"{name}.d").mkdir()
        os.kill(os.getpid(), signal.SIGKILL)


def test_only_what_killed_processes_left_is_removed(tmp_path):
    assert run_warm(be_killed, tmp_path, folder=tmp_path).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 4  # and the lock
    with temporary_name(tmp_path) as folder, replacing(tmp_path / "mine.nii.gz") as name:
        folder.mkdir()
        name.write_text("whole")
        in_hand = {folder, name}
        check_writable(tmp_path / "other")
        assert in_hand <= set(tmp_path.iterdir()) and len(list(tmp_path.iterdir())) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"mine.nii.gz"}


def hold(path: Path) -> int:
    """Whether another holds it; a process that ends without a word frees it."""
    try:
        with locked(path, "taken"):
            os._exit(0)
    except UserError:
        return 1


def test_one_at_a_time_holds_a_lock_until_it_ends(tmp_path):
    path = tmp_path / "new" / ".lock"
    with locked(path, "taken") as held:
        assert held and run_warm(hold, path, folder=tmp_path).returncode == 1
    assert not path.exists()
    for _ in range(2):
        assert run_warm(hold, path, folder=tmp_path).returncode == 0


def test_nothing_is_removed_where_no_lock_tells_whose_it_is(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path / ".lock", "taken") as held, locked(tmp_path / ".lock", "taken"):
        assert not held
    with replacing(tmp_path / "a") as name:
        name.write_text("whole")
        remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def split(text: str, separator: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        *((name, f'"{name}"') for name in ("A - B", "GM+WM", "a@b", "x; y")),
        ('a "b", c', '"a ""b"", c"'),
        ("-1", '"\'-1"'),
        ("\uff1d1", '"\'\uff1d1"'),
        ("a;=cmd|'/C calc'!A0;b", "\"a;'=cmd|'/C calc'!A0;b\""),
        ("a\n+1|-2", "\"a\n'+1|'-2\""),
        ('a;"=1', '"a;\'""=1"'),
        (None, ""),
        (math.nan, ""),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_text_is_in_quotes_and_what_could_run_has_an_apostrophe(value, cell):
    assert to_csv_text(["x"], [[value, 1]]) == f'"x"\n{cell},1\n'


@given(st.lists(st.text("a \"'=+-@\t\r\n;|,", max_size=8), min_size=1, max_size=4))
def test_no_cell_is_a_formula_whatever_a_spreadsheet_splits_lines_at_and_all_come_back(texts):
    texts = [*texts, "last"]
    written = to_csv_text(texts, [texts])
    for separator in ",;\t|":
        for row in split(written, separator):
            assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in row), (
                separator,
                row,
            )
    for row in split(written):
        assert [*map(from_csv_cell, row)] == texts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a JSON file"),
        ("[" * 500 + "]" * 500, "recursion limit"),
        ('{"a": [' + "[" * 100_000, "recursion limit"),
        ('{"a": "\\ud800"}', "hex escape"),
    ],
)
def test_text_that_nobody_could_write_again_is_not_read(tmp_path, text, words):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_json(tmp_path / "file.json", fix="mend it")
    message = str(caught.value)
    assert (
        message.startswith(f"{tmp_path / 'file.json'}: ")
        and message.endswith("; mend it.")
        and "\n" not in message
    )


def test_what_should_be_an_object_is_one(tmp_path):
    (tmp_path / "file.json").write_text("[1]")
    with pytest.raises(
        UserError, match="file.json: Input should be a valid dictionary; give nnU-Net's own file"
    ):
        read_dict(tmp_path / "file.json")
