"""The file of a record: it comes back as it was, and what was damaged or edited is as none."""

from __future__ import annotations

import json
import math
import os
import tracemalloc
import zipfile
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from nnunet_nacl.cases.findings import Finding, StructureFindings
from nnunet_nacl.cases.record import (
    CaseRecord,
    PlacePicture,
    find_record,
    read_pictures,
    read_record,
    save_again,
)
from nnunet_nacl.cases.record_key import file_key
from nnunet_nacl.utilities.errors import UserError
from tests.nnunet.measuring import measured
from tests.runs.folders import make_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> CaseRecord:
    """All that a record can hold."""
    model = make_model(tmp_path_factory.mktemp("model"), cases=1, shape=(3, 8, 8))
    [record] = measured(model.validation(), model.references, with_sample=True).values()
    found = Finding(3, 0.003, (1.0, -2.0, 3.5), 0.7, 0.9)
    return replace(
        record,
        findings=(StructureFindings("anterior", (found,), 2),),
        differences=("other spacing",),
        profile=(0.5, math.nan),
        places={"anterior": PlacePicture("slice 3 of 9", "AAAA", (8, 9))},
        image="/somewhere/scan_0000.nii.gz",
        pictures=b'{"slices": []}',
        files={"case_00.nii.gz": file_key(model.validation() / "case_00.nii.gz")},
        made_by={"checkpoint": "abc", "step_size": 0.5, "mirroring": True},
    )


def test_a_record_comes_back_as_it_was(whole, tmp_path):
    whole.save(tmp_path / "records" / "case_00.npz")
    assert [path.name for path in (tmp_path / "records").iterdir()] == ["case_00.npz"]
    back = find_record(tmp_path / "records", "case_00")
    pd.testing.assert_frame_equal(back.structures, whole.structures)
    assert back.scan == pytest.approx(whole.scan, nan_ok=True)
    assert list(back.bins) == list(whole.bins)
    for mask, stats in whole.bins.items():
        for name, sums in vars(stats).items():
            np.testing.assert_array_equal(getattr(back.bins[mask], name), sums)
    for name, values in vars(whole.sample).items():
        np.testing.assert_array_equal(getattr(back.sample, name), values)
    assert back.profile == pytest.approx(whole.profile, nan_ok=True)
    np.testing.assert_array_equal(back.addable, whole.addable)
    # pictures are read only where a page asks for them
    compared_above = ("structures", "scan", "bins", "addable", "sample", "profile", "pictures")
    for name in (field.name for field in fields(CaseRecord)):
        if name not in compared_above:
            assert getattr(back, name) == getattr(whole, name), name
    assert read_pictures(tmp_path / "records" / "case_00.npz") == {"slices": []}


def test_a_record_is_found_by_the_name_of_its_case(whole, tmp_path):
    assert find_record(tmp_path, "case_00") is None
    whole.save(tmp_path / "case_01.npz")
    assert find_record(tmp_path, "case_01") is None  # it is of another case


def test_pictures_that_are_damaged_are_no_missing_pictures(whole, tmp_path):
    path = tmp_path / "case_00.npz"
    replace(whole, pictures=b"").save(path)
    assert read_pictures(path) == {}
    replace(whole, pictures=b'{"slices": [').save(path)
    with pytest.raises(UserError, match=r"case_00\.npz: its pictures cannot be read"):
        read_pictures(path)


def test_damaged_pictures_are_not_lost_with_a_new_key(whole, tmp_path):
    path = tmp_path / "case_00.npz"
    whole.save(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[-1] == "pictures.npy"
        end = archive.start_dir
    content = bytearray(path.read_bytes())
    content[end - 10 : end] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(UserError, match="its pictures cannot be read"):
        save_again(read_record(path), path)
    assert path.read_bytes() == content


def test_names_need_not_be_utf8(whole, tmp_path):
    name = "case_\udce4"
    files = {f"{name}.nii.gz": whole.files["case_00.nii.gz"] | {"path": f"/data/{name}.nii.gz"}}
    odd = replace(
        whole,
        name=name,
        image=f"/data/{name}_0000.nii.gz",
        files=files,
        key={"files": files, "settings": {}},
    )
    odd.save(tmp_path / f"{name}.npz")
    back = find_record(tmp_path, name)
    assert (back.name, back.image, back.files, back.key) == (
        odd.name,
        odd.image,
        odd.files,
        odd.key,
    )


def arrays(**changes):
    """Replaces arrays of a record's file by what a function makes of them; None removes one."""

    def damage(path):
        with np.load(path) as data:
            content = {**data}
        for name, change in changes.items():
            content[name] = change(content[name]) if callable(change) else change
        with open(path, "wb") as file:
            np.savez_compressed(
                file, **{name: array for name, array in content.items() if array is not None}
            )

    return damage


def header(edit):
    """Edits the JSON text in a record's file."""

    def change(array):
        content = json.loads(array.tobytes())
        edit(content)
        return np.frombuffer(json.dumps(content).encode(), np.uint8)

    return arrays(header=change)


def column(name, *values):
    return header(lambda content: content["columns"].update({name: list(values)}))


def first(value):
    """Sets the first number of an array."""

    def change(array):
        array = array.copy()
        array.flat[0] = value
        return array

    return change


def bomb(path):
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("header.npy", "w") as file,
    ):
        for _ in range(300):
            file.write(bytes(1 << 20))


DAMAGES = {
    "300 MB of zeros": bomb,
    "a header of 100 MB": header(lambda content: content.update(image=" " * 100_000_000)),
    "a million numbers in a header": header(
        lambda content: content.update(profile=[0] * 1_000_000)
    ),
    "more columns than there are": header(
        lambda content: content["columns"].update({f"c{i}": [0.5, 0.5] for i in range(90_000)})
    ),
    "members beyond number": header(
        lambda content: content["columns"].update({f"volume {i}": [0.5, 0.5] for i in range(2_000)})
    ),
    "a column that is too short": column("TP", 1.0),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "another version": header(lambda content: content.update(format=0)),
    "deep JSON": arrays(header=np.frombuffer(b"[" * 100_000, np.uint8)),
    "objects": arrays(header=np.array([{}], object)),
    "a negative count": column("TP", -3.0, 1.0),
    "no structures": header(lambda content: content.update(keys=[], names=[], columns={})),
    "an infinite value of the scan": header(
        lambda content: content["scan"].update(largest_label=1e400)
    ),
    "a key that is none": header(
        lambda content: content.update(key={"files": {"reference": [1]}, "settings": {}})
    ),
    "NaN in bins": arrays(bins_nll=first(np.nan)),
    "bins of other structures": arrays(bins_class_count=lambda sums: sums[:, :2]),
    "more true voxels than voxels": arrays(addable=lambda counts: counts[::-1]),
    "no count of what may be added": arrays(addable=None),
    "a sample of other structures": arrays(sample_log_odds=lambda odds: odds[:1]),
    "a label that is none": arrays(sample_label=first(3)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record_is_as_none(whole, tmp_path, damage):
    path = tmp_path / "case_00.npz"
    whole.save(path)
    damage(path)
    assert find_record(tmp_path, "case_00") is None
    with pytest.raises(UserError, match=r"case_00\.npz: not a record of this version") as caught:
        read_record(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_crafted_header_takes_little_memory(whole, tmp_path):
    """Each error of pydantic takes a kilobyte."""
    path = tmp_path / "case_00.npz"
    whole.save(path)
    header(lambda content: content.update(findings=[[]] * 500_000))(path)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"findings\.0"):
        read_record(path)
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()
