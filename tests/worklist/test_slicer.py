"""What SegmentationReview of 3D Slicer reads and writes, as its source has it (commit e3c6b52)."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.worklist.outcome.marks import read_marks
from nnunet_nacl.worklist.slicer import (
    TO_EDIT,
    cases_of_images,
    check_images,
    corrected_files,
    write_mapping,
)

CASES = ["b, c", "a_mask", "plain"]  # the order of the list


@pytest.fixture
def folders(tmp_path):
    """Scans, an output folder, and the folder for the extension."""
    scans = tmp_path / "scans of 2026"
    output = tmp_path / "out"
    for folder in (scans, output):
        folder.mkdir()
    for case in CASES:
        (scans / f"{case}_0000.nii.gz").write_text(f"image {case}")
        (output / f"{case}.nii.gz").write_text(f"mask {case}")
    images = {case: scans / f"{case}_0000.nii.gz" for case in CASES}
    assert write_mapping(output, images, ".nii.gz") == []
    return scans, output, output / "review"


def opened(directory: str) -> list[tuple[str, str]]:
    """Images and masks that the extension finds when the folder is chosen."""
    mappings = pd.read_csv(os.path.join(directory, "mapping.csv"))
    pairs = [
        (os.path.join(directory, image), os.path.join(directory, mask))
        for image, mask in zip(mappings["img_path"], mappings["mask_path"])
    ]
    assert all(
        os.path.exists(path) and path.endswith((".nii", ".nii.gz", ".nrrd"))
        for pair in pairs
        for path in pair
    )
    return pairs


def rate(
    directory: str, image: str, rating: str, comment: str = "", mask: str = "", head: bool = False
) -> None:
    """What a click on "save and next" appends."""
    folder = "" if head else os.path.split(image)[0]
    row = {
        "file": [image.replace(folder, "") if folder else image],
        "annotation": [rating],
        "comment": [comment],
    }
    row |= {"mask_path": [mask], "mask_status": ["Mask edited"]} if mask else {}
    pd.DataFrame(row).to_csv(
        os.path.join(directory, "annotations.csv"), mode="a", index=False, header=False
    )


def test_the_extension_finds_every_image_and_a_copy_of_its_mask_that_is_made_once(folders):
    scans, output, folder = folders
    pairs = opened(str(folder))
    assert [Path(image) for image, _ in pairs] == [scans / f"{case}_0000.nii.gz" for case in CASES]
    for case, (_, mask) in zip(CASES, pairs):
        assert Path(mask).parent == folder / TO_EDIT
        assert Path(mask).read_text() == f"mask {case}"
    (folder / TO_EDIT / "plain.nii.gz").write_text("edited for an hour")
    (folder / TO_EDIT / "b, c.nii.gz").unlink()  # as the extension moves it
    images = {case: scans / f"{case}_0000.nii.gz" for case in CASES}
    assert write_mapping(output, images, ".nii.gz") == ["a_mask", "plain"]
    assert (folder / TO_EDIT / "plain.nii.gz").read_text() == "edited for an hour"
    assert all((output / f"{case}.nii.gz").is_file() for case in CASES)


def test_ratings_become_marks_and_the_last_row_counts(folders, tmp_path):
    _, _, folder = folders
    named = cases_of_images(folder, CASES, ".nii.gz")
    (first, mask), (second, _), (third, _) = opened(str(folder))
    rate(str(folder), first, "Bad images", 'two,\n"lines"', mask)
    rate(str(folder), second, "Unacceptable and not visible", head=True)
    rate(str(folder), "C:\\scans\\plain_0000.nii.gz", "Acceptable with minor changes", head=True)
    rate(str(folder), first, "Acceptable with no changes", "", mask)
    annotations = folder / "annotations.csv"
    assert read_marks([annotations], CASES, named, None) == {
        "b, c": "ok",
        "a_mask": "reject",
        "plain": "correct",
    }
    ours = tmp_path / "marks.csv"
    ours.write_text('run,case,mark,note,time\n"7","b, c",reject,"x",""\n7,plain,ok,,\n7,plain,,,\n')
    assert read_marks([annotations, ours], CASES, named, "7") == {
        "b, c": "reject",
        "a_mask": "reject",
        "plain": "",
    }
    assert read_marks([ours, annotations], CASES, named, None)["b, c"] == "ok"


def test_what_a_spreadsheet_saved_is_read_and_other_columns_are_refused(
    folders, tmp_path, separator=";"
):
    scans, output, folder = folders
    named = cases_of_images(folder, CASES, ".nii.gz")
    table = pd.read_csv(folder / "mapping.csv").assign(seen="yes")
    table[["mask_path", "seen", "img_path"]].to_csv(
        folder / "mapping.csv", sep=separator, index=False
    )
    assert cases_of_images(folder, CASES, ".nii.gz") == named
    rows = separator.join(["run", "case", "mark"]), separator.join(["7", "'=1; or", "ok"])
    (tmp_path / "marks.csv").write_text(f"{rows[0]}\n{rows[1]}\n".replace("'=1; or", '"\'=1; or"'))
    assert read_marks([tmp_path / "marks.csv"], ["=1; or"], {}, "7") == {"=1; or": "ok"}
    table.drop(columns="img_path").to_csv(folder / "mapping.csv", index=False)
    with pytest.raises(
        UserError, match=r"mapping\.csv: a row has no img_path; restore its columns"
    ):
        cases_of_images(folder, CASES, ".nii.gz")
    with pytest.raises(
        UserError, match=r"mapping\.csv was not written by nnunet_nacl and would be lost"
    ):
        check_images([], output)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run,case,mark\n8,plain,ok\n", "run 8, the folder is of run 7"),
        ("case,mark\nother,ok\n", "other is no scan of the list"),
        ("plain_0000.nii.gz,6,\n", "plain has the mark '6'"),
        ("case,mark\n".encode("utf-16-le"), "it holds zero bytes"),
        (b"\xff\xfec", "cannot be read as text"),
        (
            'case,mark,note\nplain,ok,\n\nplain,ok,"a\nplain,reject,b\n',
            "line 4 cannot be read as CSV",
        ),
        ('sep=;\ncase;mark;note\nplain;ok;"a\n"plain";"ok";""\n', "line 3 cannot be read as CSV"),
        ("\ncase,mark,mark\nplain,ok,reject\n", "line 2: the column mark stands twice"),
        ("\n", "marks.csv holds no marks; mark scans on the pages"),
        ("case,mark\n", "marks.csv holds no marks; mark scans on the pages"),
        ("scan,verdict\nplain,ok\n", "first line, scan,verdict, is neither a header with"),
    ],
)
def test_other_files_are_errors_that_name_them(tmp_path, text, message):
    path = tmp_path / "marks.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="marks.csv") as error:
        read_marks([path], CASES, cases_of_images(tmp_path, CASES, ".nii.gz"), "7")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"sep=;\r\nrun;case;mark\r\n7;plain;ok\r\n",
        "run\tcase\tmark\r\n7\tplain\tok\r\n".encode("utf-16"),
        "\ufeffcase,note,note,mark\nplain,a,b,ok\n".encode(),  # nobody reads notes
        b"Case; MARK\nplain;ok\n",
    ],
)
def test_what_spreadsheets_save_is_read(tmp_path, content):
    path = tmp_path / "marks.csv"
    path.write_bytes(content)
    assert read_marks([path], CASES, {}, "7") == {"plain": "ok"}


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "marks.csv")
    with pytest.raises(
        UserError, match=r"marks\.csv: cannot be read \(a pipe or device, not a file\)"
    ):
        read_marks([tmp_path / "marks.csv"], CASES, {}, None)


def test_the_last_edited_mask_of_an_image_counts(folders, tmp_path):
    scans, _, folder = folders
    named = cases_of_images(folder, CASES, ".nii.gz")
    edited = [
        image.split(".")[0] + f"_mask_{date}.nii.gz"
        for (image, _), dates in zip(
            opened(str(folder)), [["2026-02-01_10-00-00"], ["2026-01-01_10-00-00"], []]
        )
        for date in dates
    ]
    edited.append(str(scans / "b, c_0000_edited_mask_20260131_235959.nii.gz"))
    edited.append(str(scans / "b, c.nii.gz"))
    for path in edited:
        Path(path).write_text("")
    assert corrected_files(scans, CASES, named, ".nii.gz") == {
        "b, c": Path(edited[0]),
        "a_mask": Path(edited[1]),
    }
    with pytest.raises(UserError, match="holds no corrected labels"):
        corrected_files(tmp_path, CASES, named, ".nii.gz")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["x/a_0000.nii.gz", "y/a_0000.nii.gz"], "rated by the same name"),
        (["x/a_0000.png"], "reads .nii.gz, .nii, .nrrd alone"),
        (["v1.2/a_0000.nii.gz"], "first dot"),
    ],
)
def test_images_that_could_not_be_told_apart_are_refused(tmp_path, images, message):
    with pytest.raises(UserError, match=message):
        check_images([tmp_path / image for image in images], tmp_path)
    check_images([tmp_path / "x" / "a_0000.nii.gz", tmp_path / "x" / "b_0000.nrrd"], tmp_path)
