"""Campaign files are read as they are written, and what only looks like one ends in one line, at once."""

from __future__ import annotations

import pytest

from nnunet_nacl.campaign.campaign_file import read_yaml
from nnunet_nacl.errors import UserError


@pytest.fixture
def read(tmp_path):
    def written(text: str):
        (tmp_path / "file.yaml").write_text(text, encoding="utf-8")
        return read_yaml(tmp_path / "file.yaml")

    return written


def test_numbers_are_those_that_are_written(read):
    assert read("[027, 10, -3, 1_000, 0x1B, 1:30, 1.0, 1e3, .inf, 2024-01-01]") == [
        *(27, 10, -3),
        *("1_000", "0x1B", "1:30", "1.0", "1e3", ".inf", "2024-01-01"),
    ]
    assert read("a: {b: true, c: No, d: ~, e: , f: '1'}") == {
        "a": {"b": True, "c": False, "d": None, "e": None, "f": "1"}
    }
    assert read("# nothing") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "line 1: anchors and aliases are not read"),
        ("a: 1\nb: !!python/name:os.system x", "line 2: tags are not read"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is there twice; keep one"),
        ("x: {a: 1, a: 2}", "the key 'a' is there twice"),
        ("[" * 50_000, "nested deeper than 20 levels"),
        ("- " * 40 + "a", "nested deeper than 20 levels"),
        ("a: " + "x" * 200_000, "larger than 100 kB"),
        ("a: [", "not YAML"),
        ("? [a]\n: 1", "not YAML"),
        ("a: \x07", "not YAML"),
    ],
)
def test_what_no_campaign_needs_is_refused_with_its_place(read, text, message):
    with pytest.raises(UserError, match=message):
        read(text)


def test_a_billion_laughs_end_at_the_first(read):
    lines = ["a: &a [ha, ha, ha]"] + [f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi")]
    with pytest.raises(UserError, match="line 1: anchors and aliases are not read"):
        read("\n".join(lines))
