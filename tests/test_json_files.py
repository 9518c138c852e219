"""JSON values become typed values, or one line says where they do not fit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text
from nnunet_nacl.json_files import Array, decode, encode, parse_json, read_json


@dataclass(frozen=True)
class Inner:
    count: int
    share: float
    volumes: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Outer:
    inner: dict[str, Inner]
    table: Annotated[np.ndarray, Array(np.int64, 2)]
    sums: Annotated[np.ndarray, Array(np.float64)]
    way: Literal["one", "other"] = "one"
    distance: float | None = None
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.table) == 3:
            raise ValueError("three rows.")


GOOD = {
    "inner": {"a b": {"count": 1, "share": None, "volumes": [1, None, 2.5]}},
    "table": [[1, 2], [3, 4]],
    "sums": [1, 2.5],
    "way": "other",
    "distance": None,
    "bounds": [0, 2],
}


def test_there_and_back():
    found = decode(Outer, GOOD | {"added later": [1]}, "file")
    assert found.table.dtype == np.int64 and found.sums.dtype == np.float64
    assert np.isnan(found.inner["a b"].share) and found.distance is None and found.bounds == (0.0, 2.0)
    assert isinstance(found.bounds[1], float)
    again = decode(Outer, encode(found), "file")
    assert to_json_text(encode(again)) == to_json_text(encode(found))
    assert encode(found)["table"] == [[1, 2], [3, 4]]
    assert decode(dict[str, int | str], {"a": 1, "b": "x"}, "file") == {"a": 1, "b": "x"}
    assert decode(Outer, GOOD | {"table": []}, "file").table.shape == (0, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inner": 5}, "inner is int 5, not an object"),
        ({"inner": {"a b": {"count": "1", "share": 1}}}, "inner['a b'].count is str '1', not a whole number"),
        ({"inner": {"a b": {"count": True, "share": 1}}}, "inner['a b'].count is bool True"),
        ({"inner": {"a b": {"share": 1}}}, "inner['a b'] has no 'count'"),
        ({"table": [[1, 2], [3]]}, "table: no table of numbers with 2 axes"),
        ({"table": [[1.5]]}, "table[0][0] is float 1.5, not a whole number"),
        ({"table": [[2**70]]}, "table: no table of numbers with 2 axes"),
        ({"table": [[1], [2], [3]]}, "three rows"),
        ({"way": "neither"}, "way is str 'neither'"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    with pytest.raises(UserError) as caught:
        decode(Outer, GOOD | change, "there/file.json: no outer", fix="make it\nagain")
    message = str(caught.value)
    assert message.startswith("there/file.json: no outer: ") and message.endswith("; make it\\nagain.")
    assert words in message and len(message) < 300


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a JSON file"),
        ("[" * 500 + "]" * 500, "nested too deeply"),
        ('{"a": [' + "[" * 100_000, "nested too deeply"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
    ],
)
def test_text_that_nobody_could_write_again_is_not_read(tmp_path, text, words):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_json(tmp_path / "file.json", fix="mend it")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'file.json'}: ") and message.endswith("; mend it.") and "\n" not in message


def test_names_that_are_not_utf8_and_characters_beyond_16_bits_are_read():
    assert parse_json('["\\udcff", "\\ud83d\\ude00", "\\\\ud800"]') == ["\udcff", "\U0001f600", "\\ud800"]
    assert parse_json("[" * 100 + "]" * 100)


def test_pydantic_is_imported_when_it_is_needed():
    code = "import sys, nnunet_nacl.json_files, nnunet_nacl.files; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
