"""comparison.json: what is taken, and what is said about the rest."""

from __future__ import annotations

import json

import pytest

from nnunet_nacl.comparison.comparison_json import read_comparison
from nnunet_nacl.errors import UserError


def write(folder, content) -> None:
    (folder / "comparison.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_what_compare_wrote_is_read(study):
    assert read_comparison(study.out) == study.data


def test_before_compare(tmp_path):
    with pytest.raises(UserError, match="run `nnunet_nacl compare .* first"):
        read_comparison(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not a JSON file"),
        ("", "not a JSON file"),
        ([1], "no schema_version"),
        ({}, "no schema_version"),
        ({"schema_version": 3}, "schema version 3, this version reads 2; update nnunet_nacl"),
        ({"schema_version": 0}, "schema version 0, this version reads 2; run `nnunet_nacl compare` again"),
        ({"schema_version": "x"}, "schema version 'x'"),
        ({"schema_version": 2}, "it has no 'generated_by'"),
    ],
)
def test_broken_files(tmp_path, content, words):
    write(tmp_path, content)
    with pytest.raises(UserError, match=words) as caught:
        read_comparison(tmp_path)
    assert "comparison.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("tables"), "no 'tables'"),
        (lambda d: d.update(notes="text"), "notes is str"),
        (lambda d: d.update(trainers=[]), "compares nothing"),
        (lambda d: d["trainers"][0].pop("label"), r"trainers\[0\] has no 'label'"),
        (lambda d: d["datasets"][0]["cases"].append("more"), "not one value per case"),
        (lambda d: d["datasets"][0]["values"].update(new={}), "'new' is not described"),
        (lambda d: d["datasets"][0]["values"]["Dice"].update(nnUNetTrainer=["a"] * 2), r"is str"),
        (lambda d: d["tables"][0]["rows"][0].append("x"), "another length than its header"),
        (lambda d: d["statistics"][0].pop("verdict"), r"statistics\[0\] has no 'verdict'"),
        (lambda d: d["figures"][0].update(files=None), "files is NoneType"),
    ],
)
def test_what_does_not_fit_is_named(study, change, words):
    change(study.data)
    study.write()
    with pytest.raises(UserError, match=words):
        read_comparison(study.out)
