"""JSON that cannot be used is named."""

from __future__ import annotations

import pytest

from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.json_files import read_dict, read_json


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
    assert message.startswith(f"{tmp_path / 'file.json'}: ")
    assert message.endswith("; mend it.")
    assert "\n" not in message


def test_what_should_be_an_object_is_one(tmp_path):
    (tmp_path / "file.json").write_text("[1]")
    with pytest.raises(
        UserError, match="file.json: Input should be a valid dictionary; give nnU-Net's own file"
    ):
        read_dict(tmp_path / "file.json")
