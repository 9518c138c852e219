"""JSON values become typed values, or one line says where they do not fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
import pytest
from pydantic import NonNegativeInt, computed_field

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text
from nnunet_nacl.json_files import decode, encode, read_dict, read_json
from nnunet_nacl.json_types import Array, Number, Share, Size


@dataclass(frozen=True)
class Inner:
    count: NonNegativeInt
    share: Share
    volumes: tuple[Size, ...] = ()

    @computed_field
    @cached_property
    def double(self) -> Number:
        """Twice."""
        return 2 * self.share


@dataclass(frozen=True, eq=False)
class Outer:
    inner: dict[str, Inner]
    table: Annotated[np.ndarray, Array(np.int64, 2)]
    sums: Annotated[np.ndarray, Array(np.float64)]
    distance: float | None = None
    bounds: tuple[Number, Number] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.table) == 3:
            raise ValueError("three rows.")


GOOD = {
    "inner": {"a b": {"count": 1, "share": None, "volumes": [1, None, 2.5]}},
    "table": [[1, 2], [3, 4]],
    "sums": [1, 2.5],
    "distance": None,
    "bounds": [0, 2],
}


def test_there_and_back():
    found = decode(Outer, GOOD | {"added later": [1]}, "file")
    assert found.table.dtype == np.int64 and found.sums.dtype == np.float64
    assert np.isnan(found.inner["a b"].share) and found.distance is None and found.bounds == (0.0, 2.0)
    assert isinstance(found.bounds[1], float)
    written = encode(found)
    assert written["table"] == [[1, 2], [3, 4]] and math.isnan(written["inner"]["a b"]["double"])
    assert to_json_text(encode(decode(Outer, written, "file"))) == to_json_text(written)
    assert decode(Outer, GOOD | {"table": []}, "file").table.shape == (0, 0)
    found.inner["infinite"] = Inner(np.int64(1), np.float64(1), (math.inf,))
    assert '"count": 1' in to_json_text(encode(found)) and '"volumes": [null]' in to_json_text(encode(found))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inner": {"a b": {"count": 1.5, "share": 1}}}, "inner.a b.count: Input should be a valid integer"),
        ({"inner": {"a b": {"count": 1, "share": 1, "volumes": [-2]}}}, "volumes.0: Input should be greater than"),
        ({"table": [[1, 2], [3]]}, "table: no table of numbers with 2 axes"),
        ({"table": [[1], [2], [3]]}, "no outer: three rows;"),
        ({"distance": "x" * 500}, "distance: Input should be a valid number"),
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
    assert message.startswith(f"{tmp_path / 'file.json'}: ") and message.endswith("; mend it.") and "\n" not in message


def test_what_should_be_an_object_is_one(tmp_path):
    (tmp_path / "file.json").write_text("[1]")
    with pytest.raises(UserError, match="file.json: Input should be a valid dictionary; give nnU-Net's own file"):
        read_dict(tmp_path / "file.json")
