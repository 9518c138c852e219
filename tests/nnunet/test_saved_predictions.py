"""Folders of predictions in; segmentations, maps and the list out."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from skimage import io

from nnunet_nacl.cases.record import find_record
from nnunet_nacl.cli.main import main
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.json_files import read_dict
from nnunet_nacl.worklist import run
from tests.nnunet.measuring import Watch
from tests.nnunet.untrained import digests
from tests.processes import WARM, full_disk
from tests.review_tables import read_list
from tests.runs.folders import (
    write_image,
    write_prediction,
)
from tests.runs.predictions import SHAPE, SPACING_MM, empty_prediction, reviewed

ALL = ("confidence", "entropy")
STEP = 0.5 / 255 + 1e-6  # maps are rounded to 1/255
PROBABILITIES = (*ALL, "probabilities")


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def probabilities(folder, case):
    return np.load(folder / f"{case}.npz")["probabilities"].astype(np.float64)


def entropy(probs):
    return -(probs * np.log(np.where(probs > 0, probs, 1))).sum(0) / np.log(len(probs))


def test_maps_agree_with_the_npz_voxel_by_voxel_under_names_that_files_can_have(predict, tmp_path):
    labels = {"background": 0, "left/kidney": 1, "=sum(a)": 2, "ignore": 3}
    folder = predict(labels=labels, cases=1)
    out = tmp_path / "out"
    review = reviewed(folder, out, maps=PROBABILITIES)
    assert not review.run.problems
    probs = probabilities(folder, "case_0")
    assert len(probs) == 3
    names = ("probability_0_background", "probability_1_left-kidney", "probability_2_sum-a")
    expected = {"confidence": probs.max(0), "entropy": entropy(probs), **dict(zip(names, probs))}
    np.testing.assert_array_equal(read(out / "case_0.nii.gz"), read(folder / "case_0.nii.gz"))
    paths = {path.name: path for path in (out / "maps" / "case_0").glob("*.nii.gz")}
    assert set(paths) == {f"case_0_{name}.nii.gz" for name in expected}
    for name, values in expected.items():
        np.testing.assert_allclose(
            read(paths[f"case_0_{name}.nii.gz"]), np.rint(values * 255) / 255, atol=STEP
        )
    assert not any("ignore" in column for column in read_list(out)[0])


@pytest.mark.parametrize(
    ("reader", "ending", "shape"),
    [("Tiff3DIO", ".tif", SHAPE), ("NaturalImage2DIO", ".png", (1, 20, 16))],
)
def test_other_file_formats(predict, tmp_path, reader, ending, shape):
    folder = predict(reader=reader, file_ending=ending, shape=shape, cases=1)
    reviewed(folder, tmp_path / "out", maps=ALL)
    path = tmp_path / "out" / "maps" / "case_0" / f"case_0_confidence{ending}"
    array = {".tif": tifffile.imread, ".png": io.imread}[ending](path)
    before, after = (
        PredictionFolder.open(place, need_reference=False) for place in (folder, tmp_path / "out")
    )
    (labels, of), (again, of_again) = (
        at.dataset.read_labels(at.folder / f"case_0{ending}") for at in (before, after)
    )
    np.testing.assert_array_equal(labels, again)
    assert list(of["spacing"]) == list(of_again["spacing"])
    probs = probabilities(folder, "case_0")
    # which holds integers alone
    expected = np.rint(probs.max(0) * 255) / (1 if ending == ".png" else 255)
    np.testing.assert_allclose(array, expected.reshape(array.shape), rtol=1e-6)
    column = "anterior area_pixels" if ending == ".png" else "anterior volume_ml"
    assert float(read_list(tmp_path / "out")[0][column]) > 0


def test_a_second_run_does_only_what_changed(predict, tmp_path):
    folder = predict()
    out = tmp_path / "out"
    first = reviewed(folder, out, maps=ALL)
    text = (out / "review.csv").read_text()
    watch = Watch(out)

    def again(*expected, **arguments):
        result = reviewed(folder, out, **{"maps": ALL, **arguments})
        assert watch.new() == [*expected]
        return result

    assert [*again().scans.index] == [*first.scans.index]
    assert (out / "review.csv").read_text() == text
    again("case_0", "case_1", "case_2", overwrite=True)
    (out / "maps" / "case_0" / "case_0_entropy.nii.gz").unlink()
    for path in (out / "records" / "case_1.npz", *out.rglob("case_1*.nii.gz")):
        path.unlink()
    os.utime(folder / "case_2.npz", ns=(1, 1))  # its content is the same
    again("case_0", "case_1")
    shutil.copytree(folder, tmp_path / "copy")
    reviewed(tmp_path / "copy", out, maps=ALL)
    assert not watch.new()
    empty_prediction(folder, "case_1")
    (out / "case_2.nii.gz").unlink()
    again("case_1", "case_2")
    assert read(out / "case_1.nii.gz").max() == 0
    again("case_0", "case_1", "case_2", save_probabilities=True)
    assert (out / "case_0.npz").is_file() and (out / "case_0.pkl").is_file()
    # what might be another prediction's goes
    again("case_0", "case_1", "case_2", maps=("entropy",))
    assert not [*out.glob("*.npz"), *out.glob("*.pkl"), *out.rglob("*confidence*")]
    other = predict("other", seed=1, cases=2)
    reviewed(other, out)
    assert not [*out.rglob("*case_2*"), *(out / "maps").rglob("*.nii.gz")]
    np.testing.assert_array_equal(read(out / "case_1.nii.gz"), read(other / "case_1.nii.gz"))


@pytest.mark.parametrize(
    ("case", "name"),
    [("gone", "../victim"), ("gone", "{out}/dataset.json"), ("case_0", "maps/victim")],
)
def test_an_edited_record_removes_nothing_that_was_not_written(predict, tmp_path, case, name):
    out = tmp_path / "out"
    folder = predict(cases=1)
    reviewed(folder, out)
    (tmp_path / "victim").write_text("mine")
    (out / "maps").symlink_to(tmp_path)
    record = find_record(out / "records", "case_0")
    place = {name.format(out=out): {"path": "", "size": 0, "mtime_ns": 0, "digest": ""}}
    replace(record, name=case, files=record.files | place).save(out / "records" / f"{case}.npz")
    assert not reviewed(folder, out).run.problems
    assert (tmp_path / "victim").read_text() == "mine" and (out / "dataset.json").is_file()


def killed(folder, output):
    """A review that is killed when its third segmentation lies there, and nothing says so yet."""
    written = []
    write = run.write_case

    def write_and_die(*arguments, **options):
        written.append(write(*arguments, **options))
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return written[-1]

    run.write_case = write_and_die
    reviewed(folder, output, findings=["anterior"])


def test_a_killed_run_leaves_no_list_of_other_segmentations_and_the_next_goes_on(predict, tmp_path):
    out = tmp_path / "out"
    source = predict(cases=5, seed=1)
    reviewed(predict("earlier", cases=5), out, findings=["anterior"])
    (out / "outcome.json").write_text('{"generated_by": "nnunet_nacl 1"}')
    process = WARM.Process(target=killed, args=(source, out))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not [
        *out.glob("*.csv"),
        *out.rglob("*.html"),
        *out.glob("prediction.json"),
        *out.glob("outcome.json"),
    ]
    watch = Watch(out)
    reviewed(source, out, findings=["anterior"])
    assert watch.new() == ["case_2", "case_3", "case_4"]
    reviewed(source, tmp_path / "whole", findings=["anterior"])
    names = {str(path.relative_to(out)) for path in out.rglob("*")}
    assert names == {
        str(path.relative_to(tmp_path / "whole")) for path in (tmp_path / "whole").rglob("*")
    }
    for name in names:
        if name.endswith((".csv", ".nii.gz")):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.fixture
def review_one_case(predict, tmp_path) -> Callable[..., int]:
    """Reviews a case into the folder ``out`` again and again, with these options."""
    command = ["review", "-i", predict(cases=1), "-o", tmp_path / "out", "-np", 1, "--overwrite"]

    def review(*options: str) -> int:
        return main([*map(str, command), *options])

    return review


def test_files_of_others_stay_where_those_of_a_run_are_removed(review_one_case, tmp_path):
    out = tmp_path / "out"
    assert review_one_case("-maps") == 0
    mine = (
        "outcome.json",
        "outcome.html",
        "review_details.csv",
        "review/mine.html",
        "maps/case_0/case_0_notes.txt",
        "postprocessed/case_0.nii.gz",
    )
    for name in mine:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text('{"mine": 1}')
    assert review_one_case() == 0
    assert not list(out.rglob("*entropy*"))
    assert {(out / name).read_text() for name in mine} == {'{"mine": 1}'}


def test_files_of_others_at_the_places_of_a_list_are_refused(review_one_case, tmp_path, capsys):
    out = tmp_path / "out"
    assert review_one_case("-maps") == 0
    for name in (
        "index.html",
        "review.csv",
        "structures.csv",
        "scans.csv",
        "findings.csv",
        "prediction.json",
        "review/case_0.html",
        "calibration_applied.json",
    ):
        (out / name).write_text('{"mine": 1}')
        before = digests(out)
        assert review_one_case("-maps") == 2
        assert digests(out) == before
        problem = "was not written by nnunet_nacl and would be lost; move or rename it.\n"
        assert capsys.readouterr().err.endswith(f"error: {out / name} {problem}")
        (out / name).unlink()
    assert review_one_case("-maps") == 0


def refused(command, out, capsys, place):
    """Whether nothing has changed, and the error says what lies there and what to do."""
    before = digests(out)
    assert main([*command, "-findings"]) == 2 and digests(out) == before
    why = "not written by nnunet_nacl, or changed since, and would be lost"
    return (
        f"{out / place}: {why}; move them away, choose another -o, or replace"
        in capsys.readouterr().err
    )


MAP = "maps/case_0/case_0_confidence.nii.gz"


@pytest.mark.parametrize(
    "place", ["case_0.nii.gz", "case_0.npz", "case_0.pkl", MAP, "records/case_0.json"]
)
def test_files_of_others_at_places_of_a_case_are_refused_before_any_work(
    predict, tmp_path, capsys, place
):
    out = tmp_path / "out"
    command = [
        "review",
        "-i",
        str(predict(cases=2)),
        "-o",
        str(out),
        "-np",
        "1",
        "-maps",
        "confidence",
    ]
    assert main(command) == 0
    (out / place).write_bytes(b"mine")
    assert refused(command, out, capsys, place)
    if place == "records/case_0.json":
        return  # a document, which is known by its mark
    assert main([*command, "--overwrite"]) == 0
    assert not (out / place).exists() or (out / place).read_bytes() != b"mine"


def test_what_was_edited_in_a_list_is_refused_unless_it_is_overwritten(predict, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["review", "-i", str(predict(cases=2)), "-o", str(out), "-np", "1", "-pages", "all"]
    assert main(command) == 0 and main([*command, "-findings"]) == 0  # nothing was edited
    places = ["index.html", "review.csv", "structures.csv", "review/case_0.html"]
    for place in places:
        (out / place).write_text((out / place).read_text() + "mine")
        assert refused(command, out, capsys, place)
        assert main([*command, "--overwrite"]) == 0
        assert not (out / place).read_text().endswith("mine")
    document = read_dict(out / "prediction.json")
    (out / "prediction.json").write_text(json.dumps(document))  # which says the same
    assert main(command) == 0
    (out / "prediction.json").write_text(json.dumps(document | {"notes": ["mine"]}))
    assert refused(command, out, capsys, "prediction.json")


def test_a_damaged_record_is_named_and_not_the_files_of_its_scan(predict, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["review", "-i", str(predict(cases=2)), "-o", str(out), "-np", "1"]
    assert main(command) == 0
    record = out / "records" / "case_0.npz"
    record.write_bytes(record.read_bytes()[:60] + b"x" * 500)
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr().err
    assert f"{record}: damaged, so that nobody knows whether files of these scans were" in said
    assert "case_0.nii.gz" not in said
    assert main([*command, "--overwrite"]) == 0


def test_a_file_at_the_name_of_a_new_case_is_refused(predict, tmp_path, capsys):
    source = predict(cases=2)
    out = tmp_path / "out"
    command = ["review", "-i", str(source), "-o", str(out), "-np", "1"]
    assert main(command) == 0
    (out / "case_2.nii.gz").write_bytes(b"mine")
    assert main(command) == 0
    write_prediction(
        source, "case_2", np.full((3, *SHAPE), 1 / 3), np.ones(SHAPE, np.uint8), SPACING_MM
    )
    assert refused(command, out, capsys, "case_2.nii.gz")


def test_a_corrected_file_of_a_case_that_is_gone_is_refused(predict, tmp_path, capsys):
    source = predict(cases=2)
    out = tmp_path / "out"
    command = ["review", "-i", str(source), "-o", str(out), "-np", "1"]
    assert main(command) == 0
    (out / "case_0.nii.gz").write_bytes(b"mine")
    for path in source.glob("case_0*"):
        path.unlink()
    assert refused(command, out, capsys, "case_0.nii.gz")
    (out / "case_0.nii.gz").rename(tmp_path / "corrected.nii.gz")
    assert main(command) == 0 and not (out / "records" / "case_0.npz").exists()


def test_a_record_of_others_is_refused_before_any_work(predict, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["review", "-i", str(predict(cases=2)), "-o", str(out), "-np", "1"]
    assert main(command) == 0
    for path in (out / "records" / "case_1.npz", out / "case_1.nii.gz"):
        path.unlink()
    np.savez(out / "records" / "case_1.npz", mine=np.zeros(3))
    before = digests(out)
    assert main(command) == 2 and digests(out) == before
    assert (
        "records/case_1.npz: not written by nnunet_nacl, and would be lost; move it"
        in capsys.readouterr().err
    )


def test_a_run_is_called_by_what_was_seen(predict, tmp_path):
    source = predict()
    out = tmp_path / "out"

    def run(**asked) -> str:
        reviewed(source, out, **asked)
        return read_dict(out / "prediction.json")["run"]

    first = run()
    before = (source / "case_1.npz").read_bytes()
    assert run() == run(maps=ALL) == first, "their marks hold"
    shutil.copy(source / "case_0.npz", source / "case_1.npz")
    second = run()
    (source / "case_1.npz").write_bytes(before)
    assert second != first == run()


def test_what_the_disk_does_not_hold_gets_no_name(predict, tmp_path, capsys):
    folder = predict(cases=2, shape=(24, 90, 90))
    out = tmp_path / "out"
    write_prediction(
        folder, "small", np.full((3, 2, 2, 2), 1 / 3), np.ones((2, 2, 2), np.uint8), SPACING_MM
    )
    (folder / "alone.npz").write_bytes((folder / "small.npz").read_bytes())
    command = ["review", "-i", str(folder), "-o", str(out), "-np", "1", "-maps"]
    with full_disk(100_000):
        assert main(command) == 1
    assert re.search(
        r"case_0, case_1: .*CASE\S*.nii.gz: cannot be written .*free", capsys.readouterr().err
    )
    listed = {row["case"]: row["problem"] for row in read_list(out)}
    assert listed.pop("small") == "" and "alone.nii.gz is missing" in listed["alone"]
    assert read_dict(out / "prediction.json")["problems"] == listed
    assert all(path.stat().st_size > 50 for path in out.rglob("*.nii.gz")) and not list(
        out.rglob("*.tmp*")
    )
    (folder / "alone.npz").unlink()
    assert main(command) == 0
    good = {path: path.read_bytes() for path in out.glob("*.nii.gz")}
    with full_disk(1024):
        assert main([*command, "--overwrite"]) in (1, 2)
    assert good.keys() == set(out.glob("*.nii.gz")) and all(
        len(path.read_bytes()) > 50 for path in good
    )


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda f: f.parent / "link" / "maps", "is or lies in"),
        (lambda f: f.parent / "images", "holds other images or predictions"),
        (lambda f: "/proc/maps", "cannot be|no file can be"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(predict, tmp_path, output, message):
    folder = predict(cases=1)
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "images").mkdir()
    write_image(np.zeros(SHAPE, dtype=np.uint8), tmp_path / "images" / "a.nii.gz", SPACING_MM)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(UserError, match=message):
        reviewed(folder, Path(output(folder)))
    assert sorted(path.name for path in folder.iterdir()) == before
