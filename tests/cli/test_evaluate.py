"""`nnunet_nacl evaluate` as a user types it; nothing that lies in a folder may end in a traceback."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunet_nacl.cli.main import main
from tests.evaluation.folders import CLASSES, REGIONS, make_model, write_image, write_json


def evaluate(*arguments) -> int:
    return main(["evaluate", *map(str, arguments), "-np", "1"])


def test_a_model_by_name(make_validated, capsys):
    model = make_validated(cases=2, folds=2)
    assert evaluate("-d", 999, "-c", "3d_fullres", "--csv", "--paper") == 0
    out = capsys.readouterr().out
    for text in ("Dataset999_Synthetic", "fold 0 1: 4 cases", "anterior", "foreground", "pooled", "paper's evaluation"):
        assert text in out
    document = json.loads((model.folder / "calibration.json").read_text())
    rows = list(csv.DictReader((model.folder / "calibration.csv").open()))
    [row] = [r for r in rows if (r["scope"], r["mask"], r["metric"], r["structure"]) == ("pooled", "all", "ECE", "")]
    assert float(row["value"]) == document["calibration"]["pooled"]["all"]["ECE"]
    assert sum(r["metric"] == "Dice" and r["scope"] == "case" for r in rows) == 8
    assert evaluate("-d", "Dataset999_Synthetic", "-c", "3d_fullres", "-f", 1, "-o", model.root / "one.json") == 0
    assert json.loads((model.root / "one.json").read_text())["n_cases"] == 2


def test_two_folders(make_validated, capsys):
    model = make_validated(cases=2, labels=REGIONS)
    predictions = model.root / "predictions"
    shutil.copytree(model.validation(), predictions)
    arguments = (model.references, predictions)
    assert evaluate(*arguments) == 2 and "-djfile" in capsys.readouterr().err
    files = ("-djfile", model.folder / "dataset.json", "-pfile", model.folder / "plans.json")
    assert evaluate(*arguments, *files) == 0 and (predictions / "calibration.json").is_file()
    assert "whole" in capsys.readouterr().out
    assert evaluate(*arguments, *files, "--paper") == 2 and "classes only" in capsys.readouterr().err


def test_all_problems_are_listed_and_the_rest_is_saved(make_validated, capsys):
    model = make_validated(cases=4)
    (model.validation() / "case_00.npz").write_bytes(b"PK")
    (model.validation() / "case_02.npz").unlink()
    assert evaluate("-d", 999, "-c", "3d_fullres") == 1
    error = capsys.readouterr().err
    assert "2 could not be evaluated" in error and "case_00.npz" in error and "case_02.npz" in error
    assert json.loads((model.validation() / "calibration.json").read_text())["n_cases"] == 2


def test_chill_accepts_cases_without_prediction(make_validated, capsys):
    model = make_validated(cases=2)
    for path in model.validation().glob("case_01*"):
        path.unlink()
    assert evaluate("-d", 999, "-c", "3d_fullres") == 1 and "case_01" in capsys.readouterr().err
    assert evaluate("-d", 999, "-c", "3d_fullres", "--chill") == 0
    assert evaluate(model.references, model.validation()) == 1
    assert evaluate(model.references, model.validation(), "--chill") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a model"),
        (("a", "b", "-d", "999"), "name a model"),
        (("a",), "two folders"),
        (("a", "b"), "b: no such folder"),
        (("-d", "999"), "-c CONFIGURATION"),
        (("-d", "998", "-c", "2d"), "998"),
        (("-d", "x", "-c", "2d"), "'x'"),
        (("-d", "999", "-c", "2d"), "nnUNetTrainer__nnUNetPlans__3d_fullres"),
        (("-d", "999", "-c", "3d_fullres", "-f", "4"), "fold_4"),
        (("-d", "999", "-c", "3d_fullres", "-bins", "0"), "n_bins"),
        (("-d", "999", "-c", "3d_fullres", "-dilated", "-1"), "dilation_mm"),
        (("-d", "999", "-c", "3d_fullres", "-boundary", "nan"), "boundary_mm"),
        (("-d", "999", "-c", "3d_fullres", "-o", "x.txt"), "end with .json"),
    ],
)
def test_bad_arguments_end_in_one_line(make_validated, capsys, arguments, message):
    make_validated(cases=1)
    assert main(["evaluate", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("nnunet_nacl evaluate: error:") and "Traceback" not in error


def test_missing_environment_is_named(monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_results", raising=False)
    assert evaluate("-d", 4, "-c", "2d") == 2 and "nnUNet_results" in capsys.readouterr().err


def test_number_of_processes_must_be_positive(make_validated, capsys):
    make_validated(cases=1)
    assert main(["evaluate", "-d", "999", "-c", "3d_fullres", "-np", "0"]) == 2 and "-np" in capsys.readouterr().err


ARRAYS = st.sampled_from(["probs", "shape", "dtype", "values", "bytes", "cut", "none", "0d", "empty", "huge header"])
IMAGES = st.sampled_from(["good", "labels", "float", "shape", "bytes", "cut", "2d", "none"])
JSONS = st.sampled_from(["good", "good", "good", "bytes", "type", "labels", "regions", "ending"])


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck), derandomize=True)
@given(array=ARRAYS, image=IMAGES, dataset=JSONS, seed=st.integers(0, 2**16), regions=st.booleans())
def test_whatever_lies_in_the_folder_ends_in_a_message(array, image, dataset, seed, regions):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as root:
        model = make_model(Path(root), labels=REGIONS if regions else CLASSES, cases=2, shape=(3, 6, 5), seed=seed)
        spoil_array(rng, model.validation() / "case_00.npz", array)
        spoil_image(rng, rng.choice([model.references, model.validation()]) / "case_00.nii.gz", image)
        spoil_dataset(rng, model.folder / "dataset.json", dataset)
        import contextlib
        import io

        error, output = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(output):
            status = evaluate(model.references, model.validation())
    text = error.getvalue()
    assert status in (0, 1, 2) and "Traceback" not in text and "unexpected" not in text, text
    if status:
        assert "case_00" in text or "dataset.json" in text or root in text, text
    else:
        assert "written" in output.getvalue()


def spoil_array(rng, path: Path, how: str) -> None:
    probs = np.load(path)["probabilities"]
    content = bytearray(path.read_bytes())
    if how == "shape":
        shape = tuple(rng.integers(1, 5, rng.integers(1, 6)))
        np.savez_compressed(path, probabilities=np.full(shape, 1 / shape[0], np.float32))
    elif how == "dtype":
        dtype = rng.choice(["<f2", ">f4", "<f8", ">f8", "<i4", "|b1", "<c8", "|u1", "<U3"])
        np.savez_compressed(path, probabilities=probs.astype(dtype))
    elif how == "values":
        broken = probs.copy()
        where = tuple(rng.integers(0, n) for n in probs.shape)
        broken[where] = rng.choice([np.nan, np.inf, -np.inf, -1, 2, 1e30, -1e-9])
        np.savez_compressed(path, probabilities=broken)
    elif how == "bytes":
        for position in rng.integers(0, len(content), 5):
            content[position] = rng.integers(0, 256)
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[: rng.integers(0, len(content))])
    elif how == "none":
        path.unlink()
    elif how == "0d":
        np.savez_compressed(path, probabilities=np.float32(1))
    elif how == "empty":
        np.savez_compressed(path, probabilities=np.zeros((3, 0, 6, 5), np.float32))
    elif how == "huge header":
        import zipfile

        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 100000, 100000, 9), }"
            archive.writestr("probabilities.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def spoil_image(rng, path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "labels":
        write_image(rng.integers(0, 9, (3, 6, 5)).astype(np.uint8), path, (2.0, 1.0, 0.5))
    elif how == "float":
        write_image(rng.normal(size=(3, 6, 5)).astype(np.float32), path, (2.0, 1.0, 0.5))
    elif how == "shape":
        write_image(np.zeros(tuple(int(n) for n in rng.integers(1, 8, 3)), np.uint8), path, (2.0, 1.0, 0.5))
    elif how == "2d":
        write_image(np.zeros((6, 5), np.uint8), path, (1.0, 0.5))
    elif how == "bytes":
        for position in rng.integers(0, len(content), 3):
            content[position] = rng.integers(0, 256)
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[: rng.integers(0, len(content))])
    elif how == "none":
        path.unlink()


def spoil_dataset(rng, path: Path, how: str) -> None:
    content = json.loads(path.read_text())
    if how == "bytes":
        text = bytearray(path.read_bytes())
        text[rng.integers(0, len(text))] = rng.integers(0, 256)
        path.write_bytes(text)
    elif how == "type":
        write_json(path, rng.choice([1, 2]).item() * [content["labels"]])
    elif how == "labels":
        labels = [{}, {"background": 1}, {"background": 0}, {"background": 0, "a": 2}, {"background": 0, "a": "x"}, "b",
                  {"background": 0, "a": None}, {"background": 0, "a": 1, "ignore": 1}]  # fmt: skip
        write_json(path, content | {"labels": labels[rng.integers(len(labels))]})
    elif how == "regions":
        write_json(path, content | {"labels": {"background": 0, "a": [1, 2]}, "regions_class_order": [1, 2, 3]})
    elif how == "ending":
        write_json(path, content | {"file_ending": [".xyz", "", 5, ".npz"][rng.integers(4)]})
