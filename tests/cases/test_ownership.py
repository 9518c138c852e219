"""Files of a case: what a run wrote is replaced and removed, files of others are not, also after a
kill."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_nacl.cases.ownership import OwnedFiles, files_of_case
from nnunet_nacl.cases.record import check_records, record_path
from nnunet_nacl.cases.record_key import file_key
from nnunet_nacl.utilities.errors import UserError

PLACE = "scan.nii.gz"


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "out"


def files_of(output: Path, **options: bool) -> OwnedFiles:
    return files_of_case(output, output / "records", "scan", **options)


def write(output: Path, text: str, place: str = PLACE, **options: bool) -> OwnedFiles:
    files = files_of(output, **options)
    with files.staging(place) as work:
        (work / Path(place).name).write_text(text)
    return files


def write_record(output: Path, files: OwnedFiles, **header: object) -> None:
    """The header of a record, as all versions write it, alone."""
    content = {"format": 1, "case": "scan", "files": files.written, **header}
    save_arrays(record_path(output / "records", "scan"), header=content)


def save_arrays(path: Path, **arrays: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = {
        name: np.frombuffer(json.dumps(value).encode(), np.uint8) for name, value in arrays.items()
    }
    np.savez_compressed(path, **made)


def test_what_was_written_is_replaced_while_it_is_as_it_was_written(output):
    files = write(output, "first")
    write_record(output, files)  # of an old format: an upgrade refuses nothing
    files.settle(files.written)
    assert not files_of(output).in_the_way([PLACE])
    (output / PLACE).write_text("corrected")
    assert files_of(output).in_the_way([PLACE]) == [output / PLACE]
    with pytest.raises(
        UserError, match=r"scan\.nii\.gz: not written by nnunet_nacl, or changed since"
    ):
        write(output, "second")
    files_of(output).remove(PLACE)
    assert (output / PLACE).read_text() == "corrected"
    write(output, "second", replace_others=True)
    assert (output / PLACE).read_text() == "second"


def test_a_run_that_was_killed_knows_what_it_wrote_and_what_the_run_before_it_wrote(output):
    first = write(output, "first")
    write(output, "a map", "maps/scan/scan_entropy.nii.gz")
    # here one was killed, and the next, which writes no map, after its segmentation
    write_record(output, first)
    second = write(output, "second")
    assert not files_of(output).in_the_way(second.known_names)
    assert second.known_names == [PLACE, "maps/scan/scan_entropy.nii.gz"]
    write_record(output, second)
    third = files_of(output)  # killed before it had removed the map: whoever comes next does
    third.settle(second.written)
    assert sorted(path.name for path in output.rglob("*") if path.is_file()) == [
        "scan.nii.gz",
        "scan.npz",
    ]
    assert (output / PLACE).read_text() == "second" and not (output / "maps").is_dir()


def test_files_of_others_are_found_before_any_work(output):
    places = [PLACE, "scan.npz", "scan.pkl", "maps/scan/scan_entropy.nii.gz"]
    assert files_of(output).in_the_way(places) == []
    for place in places[1:]:
        (output / place).parent.mkdir(parents=True, exist_ok=True)
        (output / place).write_text("mine")
    (output / PLACE).mkdir()
    (output / "records").mkdir()
    (output / "records" / "scan.json").write_text('{"mine": 1}')  # where the pending record goes
    expected = [*(output / place for place in places), output / "records" / "scan.json"]
    assert files_of(output).in_the_way(places) == expected
    files_of(output).settle(())
    assert all(path.exists() for path in expected)
    (output / "scan.npz").write_bytes(b"")  # there is nothing in it to lose
    (output / "scan.pkl").unlink()
    (output / "scan.pkl").symlink_to("gone")
    assert files_of(output).others(["scan.npz", "scan.pkl"]) == [output / "scan.pkl"]


def test_a_broken_npz_is_not_taken_for_another_broken_one(output):
    (output / "records").mkdir(parents=True)
    (output / "scan.npz").write_bytes(b"PK")
    files = files_of(output)
    files.written["scan.npz"] = file_key(output / "scan.npz")
    assert files.written["scan.npz"]["digest"] == ""
    write_record(output, files)
    assert files_of(output).others(["scan.npz"]) == [output / "scan.npz"]


@pytest.mark.parametrize(
    "place",
    [
        "../scan.txt",
        "{output}/scan.txt",
        "dataset.json",
        "maps/other/x",
        "scan\0",
        "scan_1.nii.gz",  # of another scan
        f"scan.{'x' * 5000}",  # which no file can be called
    ],
)
def test_a_record_that_was_edited_makes_no_file_ours(output, place):
    place = place.format(output=output)
    files = files_of(output)
    output.mkdir()
    (output / "victim").write_text("mine")
    files.written[place] = file_key(output / "victim")
    write_record(output, files)
    assert files_of(output).known_names == []


def test_the_segmentation_that_an_earlier_version_predicted_of_a_validation_case_is_ours(output):
    """Its record names no files: the segmentation is one that the key names, where the record says
    who made it."""
    output.mkdir()
    (output / PLACE).write_text("predicted")
    key = {"files": {"segmentation": file_key(output / PLACE)}, "settings": {}}
    for made_by, others in (({"checkpoint": "abc"}, []), ({}, [output / PLACE])):
        write_record(output, files_of(output), key=key, made_by=made_by)
        assert files_of(output).others([PLACE]) == others


def test_a_record_is_known_by_its_format(tmp_path):
    save_arrays(tmp_path / "ours.npz", header={"format": 99, "case": "ours"})
    save_arrays(
        tmp_path / "cut.npz", header={"format": 99, "case": "cut", "more": list(range(1000))}
    )
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:200])
    (tmp_path / "empty.npz").write_bytes(b"")
    check_records(tmp_path, ["ours", "cut", "empty", "none"])
    save_arrays(tmp_path / "header.npz", header={"patient": "x"}, image=[1, 2])
    save_arrays(tmp_path / "image.npz", image=[1, 2])
    (tmp_path / "text.npz").write_text("mine")
    (tmp_path / "folder.npz").mkdir()
    for name in ("header", "image", "text", "folder"):
        with pytest.raises(
            UserError, match=rf"{name}\.npz: not written by nnunet_nacl, and would be lost; move it"
        ):
            check_records(tmp_path, ["ours", name])
