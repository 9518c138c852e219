"""Whatever lies in a folder, a command ends in a result or in a message that names the file."""

from __future__ import annotations

import contextlib
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunet_nacl.cli.main import main
from tests.mutated_json import mutations
from tests.numbers.models import give_map, make_trained
from tests.runs.folders import (
    CLASSES,
    CLASSES_WITH_IGNORE,
    REGIONS,
    REGIONS_WITH_IGNORE,
    make_model,
    write_image,
    write_json,
)
from tests.runs.predictions import predictions_in

SPACING_MM = (2.0, 1.0, 0.5)
LABELS = (CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE)
IN_ARRAY = ("good", "shape", "dtype", "values", "bytes", "cut", "none", "0d", "empty", "huge header")
IN_IMAGE = ("good", "labels", "shape", "2d", "geometry", "bytes", "cut", "none")
DTYPES = ("<f2", ">f4", "<f8", ">f8", "<i4", "|b1", "<c8", "|u1", "<U3", "<M8[s]", "V4")
# most examples break one thing, so that its own message is what is tested
BREAKS = st.one_of(
    st.tuples(st.sampled_from(IN_ARRAY), st.just("good")),
    st.tuples(st.just("good"), st.sampled_from(IN_IMAGE)),
    st.tuples(st.sampled_from(IN_ARRAY), st.sampled_from(IN_IMAGE)),
)
FUZZ = {"suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


@settings(max_examples=40, **FUZZ)
@given(BREAKS, st.sampled_from(LABELS), st.booleans(), st.integers(0, 2**16))
def test_whatever_is_broken_ends_in_a_message(breaks, labels, in_truth, seed):
    array, image = breaks
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as root:
        model = make_model(Path(root), labels=labels, cases=2, shape=(3, 6, 5), spacing_mm=SPACING_MM, seed=seed)
        spoil_array(rng, model.validation() / "case_00.npz", array)
        spoil_image(rng, (model.references if in_truth else model.validation()) / "case_00.nii.gz", image)
        status, output, error = call(["evaluate", "-i", model.validation(), "-gt", model.references, "-np", "1"])
    assert status in (0, 1, 2) and "Traceback" not in error and "unexpected" not in error, error
    assert ("written" in output) == (status < 2), error
    assert not status or "case_00" in error, error
    if array in ("shape", "0d", "empty", "none", "cut") or image in ("2d", "cut"):
        assert status == 1  # never silently taken as something else
    if (array, image) == ("good", "good"):
        assert status == 0, error


def evaluated(root: Path) -> tuple[list, list[Path]]:
    """A model with the records of its cases."""
    model = make_model(root / "nnunet", cases=2, shape=(3, 6, 5))
    command = ["evaluate", "-d", "999", "-c", "3d_fullres", "-np", "1"]
    assert call(command)[0] == 0
    splits = model.references.parent / "splits_final.json"
    return command, [splits, model.folder / "plans.json", model.folder / "dataset.json"]


def reviewed(root: Path) -> tuple[list, list[Path]]:
    """Predictions that say by which map they are calibrated, and their review."""
    folder, out = predictions_in(root)(cases=1, shape=(3, 6, 5)), root / "out"
    write_json(folder / "calibration_applied.json", {"map": "elsewhere/map.json", "map_sha256": "0" * 64})
    command = ["review", "-i", folder, "-o", out, "-np", "1", "-maps", "entropy"]
    assert call(command)[0] == 0
    names = ("dataset.json", "plans.json", "calibration_applied.json")
    return command, [out / "review_args.json", *(folder / name for name in names)]


def given(root: Path) -> tuple[list, list[Path]]:
    """A model, and a map for it from another site."""
    model = make_trained(root / "nnunet", folds=2, cases=1, shape=(3, 6, 5))
    write_json(root / "given.json", give_map(model))
    command = ["calibrate", "-d", "999", "-c", "3d_fullres", "-map", root / "given.json"]
    return command, [root / "given.json", model.folder / "plans.json", model.folder / "dataset.json"]


@pytest.mark.parametrize(("make", "number"), [(evaluated, 8), (reviewed, 20), (given, 12)])
def test_whatever_a_document_says_ends_in_a_message(make, number, tmp_path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / "nnunet" / name))
    command, documents = make(tmp_path)
    failed = []
    for path in documents:
        whole = path.read_text()
        for where, value, text in (*mutations(whole, number), ((), "as it was", whole)):
            path.write_text(text)
            try:
                status, _, error = call(command)
            except Exception as error:
                failed.append((path.name, where, value, repr(error)))
                continue
            said = error.rpartition(f"nnunet_nacl {command[0]}: ")[2].splitlines()
            if ": unexpected " in error or status and not (said and all(line.startswith("  ") for line in said[1:])):
                failed.append((path.name, where, value, error))
        assert status == 0, error
    assert not failed


def call(arguments: list) -> tuple[int, str, str]:
    output, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(output):
        status = main([*map(str, arguments)])
    return status, output.getvalue(), error.getvalue()


def spoil_bytes(rng, path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "bytes":
        for position in rng.integers(0, len(content), rng.integers(1, 6)):
            content[position] = rng.integers(0, 256)
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[: rng.integers(0, len(content))])
    elif how == "none":
        path.unlink()


def spoil_array(rng, path: Path, how: str) -> None:
    probs = np.load(path)["probabilities"]
    spoil_bytes(rng, path, how)
    if how == "shape":
        shape = (probs.shape[0] + rng.integers(0, 2), *(n + 1 for n in probs.shape[1:]))[: rng.integers(1, 5)]
        np.savez_compressed(path, probabilities=np.full(shape, 1 / shape[0], np.float32))
    elif how == "dtype":
        dtype = DTYPES[rng.integers(len(DTYPES))]
        changed = np.zeros(probs.shape, dtype) if dtype[0] in "V" or "M8" in dtype else probs.astype(dtype)
        np.savez_compressed(path, probabilities=changed)
    elif how == "values":
        where = tuple(rng.integers(0, n) for n in probs.shape)
        probs[where] = rng.choice([np.nan, np.inf, -np.inf, -1, 2, 1e30, -1e-9])
        np.savez_compressed(path, probabilities=probs)
    elif how == "0d":
        np.savez_compressed(path, probabilities=np.float32(1))
    elif how == "empty":
        np.savez_compressed(path, probabilities=np.zeros((len(probs), 0, 6, 5), np.float32))
    elif how == "huge header":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 100000, 100000, 9), }"
            archive.writestr("probabilities.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def spoil_image(rng, path: Path, how: str) -> None:
    spoil_bytes(rng, path, how)
    if how == "labels":
        write_image(rng.integers(0, 9, (3, 6, 5)).astype(np.uint8), path, SPACING_MM)
    elif how == "shape":
        write_image(np.zeros(tuple(int(n) for n in rng.integers(1, 8, 3)), np.uint8), path, SPACING_MM)
    elif how == "2d":
        write_image(np.zeros((6, 5), np.uint8), path, SPACING_MM[1:])
    elif how == "geometry":
        write_image(np.zeros((3, 6, 5), np.uint8), path, tuple(rng.uniform(0.1, 5, 3)))
