"""Which cases are shown, what their pictures say, and what happens where files are missing."""

from __future__ import annotations

import base64
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from nnunet_nacl.calibration.decision import decide
from nnunet_nacl.comparison.alignment import align
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.comparison.entries import read_entries
from nnunet_nacl.comparison.resolution import Options, locate, read_documents
from nnunet_nacl.io.companion_files import read_image
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.runs.heldout import HeldOut
from nnunet_nacl.show.gallery import Gallery, Picture, make_gallery, pick_cases
from tests.comparison.models import CONFIGURATION, DATASET, PLANS, Study, make_study
from tests.runs.folders import CLASSES, REGIONS_WITH_IGNORE, read, write_image, write_json

NAMES = ("nnUNetTrainer", "nnUNetTrainerCE")
SHAPE, SPACING = (6, 14, 12), (2.0, 1.0, 0.5)


def write_images(study: Study) -> None:
    """An image of every case."""
    images = study.root / "nnUNet_raw" / DATASET / "imagesTr"
    images.mkdir(parents=True)
    for truth in (study.root / "nnUNet_preprocessed" / DATASET / "gt_segmentations").iterdir():
        name, values = truth.name.partition(".")[0], read(truth)
        values = values if truth.suffix == ".png" else values.astype(np.float32)
        write_image(values, images / truth.name.replace(name, f"{name}_0000"), SPACING)


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Function that makes two methods on one case in each of two folds, with its image."""

    def make(**arguments) -> Study:
        given = {"cases": 1, "folds": 2, "shape": SHAPE, "spacing_mm": SPACING} | arguments
        study = make_study(tmp_path, dict(zip(NAMES, (1.0, 3.0))), **given)
        for name, value in study.environment.items():
            monkeypatch.setenv(name, value)
        write_images(study)
        return study

    return make


@pytest.fixture
def study(build) -> Study:
    return build()


def gallery_of(*names: str, paths=(), channel: int = 0, before=None) -> Gallery:
    """What `compare` shows; ``before`` happens after everything was measured."""
    entries = read_entries([*(("-tr", name) for name in names or NAMES), *(("-i", str(path)) for path in paths)])
    selection = locate("999", entries, Options(plans=PLANS, configuration=CONFIGURATION, allow_training_cases=True))
    dataset = align(selection, read_documents(selection))
    if before:
        before()
    folders = {(place.entry.name, place.fold): place.folder for place in selection.predictions}
    return make_gallery(Comparison(entries, [dataset], n_bootstrap=100), dataset, folders, channel)


def all_pictures(gallery: Gallery) -> list[Picture]:
    return [picture for case in gallery.cases for _, pictures in case.pictures for picture in pictures]


def remove_npz(study: Study, name: str) -> None:
    for path in study.model(name).rglob("*.npz"):
        path.unlink()


def test_cases_are_picked_by_the_mean_over_methods():
    values = {
        ("Dice", "a"): [0.9, 0.5, 0.7, 0.8, np.nan],
        ("Dice", "b"): [0.3, 0.8, 0.7, 0.9, 1.0],
        ("ECE:foreground", "a"): [0.1, 0.2, 0.3, 0.4, 0.1],
        ("ECE:foreground", "b"): [0.1, 0.2, 0.3, 0.4, 0.9],
    }
    assert pick_cases(pd.DataFrame(values, index=list("vwxyz"))) == {
        "x": ["median mean Dice"],  # 0.70, the better one of the two in the middle; z, without a value, is in no order
        "v": ["worst mean Dice"],
        "z": ["highest ECE"],
    }
    [(case, reasons)] = pick_cases(pd.DataFrame(values, index=list("vwxyz")).iloc[:1]).items()
    assert case == "v" and len(reasons) == 3
    assert pick_cases(pd.DataFrame({key: [np.nan] for key in values})) == {}


@pytest.mark.parametrize("labels", [CLASSES, REGIONS_WITH_IGNORE], ids=["classes", "regions_ignore"])
def test_every_picture_is_there_and_says_what_it_shows(build, labels):
    study = build(labels=labels)
    gallery = gallery_of()
    assert gallery.problems == [] and len(gallery.cases) == 2
    truths = study.root / "nnUNet_preprocessed" / DATASET / "gt_segmentations"
    for case in gallery.cases:
        (heading, [true]), *methods = case.pictures
        assert heading == "Ground truth" and case.has_ignored == ("ignore" in labels)
        assert len({(p.width, p.height) for _, pictures in case.pictures for p in pictures}) == 1
        index = int(re.match(r"axial slice (\d+) of 6, \d+ × \d+ mm of it, ", case.caption)[1]) - 1
        fold = int(case.case[-2])
        folders = [study.validation(name, fold) for name in NAMES]
        truth, *predicted = (read(folder / f"{case.case}.nii.gz") for folder in (truths, *folders))
        valid = truth != labels.get("ignore", 255)
        differing = ((predicted[0] != predicted[1]) & valid).sum(axis=(1, 2))
        assert index == differing.argmax()
        inside = [(truth[index] == 1) | ((truth[index] == 2) & ("whole" in labels)), truth[index] == 2]
        areas = ", ".join(f"{n} {np.sum(mask) * 0.5:.0f} mm²" for n, mask in zip(gallery.structures, inside))
        assert true.alt == f"Ground truth, {case.case}: {areas}."
        for name, segmentation, (heading, (prediction, sure)) in zip(NAMES, predicted, methods):
            assert re.fullmatch(r".*: Dice 0\.\d{3}, ECE 0\.\d{3}", heading) and ("CE:" in heading) == name.endswith(
                "CE"
            )
            wrong = np.sum((segmentation[index] != truth[index]) & valid[index]) * 0.5
            assert f" {wrong:.0f} mm² differ" in prediction.alt
            probs = np.load(study.validation(name, fold) / f"{case.case}.npz")["probabilities"][:, index]
            values = np.maximum(probs, 1 - probs).min(0) if "whole" in labels else probs.max(0)
            seen = values[np.any(inside, axis=0)]
            assert (f", {seen.mean():.2f} on average" in sure.alt) if seen.size else "average" not in sure.alt
    assert all(picture.src.startswith("data:image/png") for picture in all_pictures(gallery))


@pytest.mark.parametrize("channel", [0, 3])
def test_without_an_image_the_rest_is_shown(study, monkeypatch, channel):
    if channel == 0:
        monkeypatch.delenv("nnUNet_raw")
    gallery = gallery_of(channel=channel)
    words = "no channel 3; choose another -channel" if channel else "nnUNet_raw is not set; the images lie there."
    assert gallery.problems and all(words in problem for problem in gallery.problems)
    assert all(picture.src for picture in all_pictures(gallery)) and "no image" in gallery.cases[0].caption


def test_without_npz_the_slices_that_were_kept_are_shown(study):
    gallery_of()
    held_out = HeldOut({fold: PredictionFolder.open(study.validation(NAMES[1], fold)) for fold in ("0", "1")})
    held_out.evaluate()
    for case in list(held_out.files):
        held_out.sample(case)
    remove_npz(study, NAMES[1])
    gallery = gallery_of()
    assert gallery.problems == [] and all(picture.src for picture in all_pictures(gallery))


def test_without_probabilities_their_confidence_is_missing(study):
    gallery = gallery_of(before=lambda: remove_npz(study, NAMES[1]))
    assert gallery.problems and all(".npz" in problem for problem in gallery.problems)
    for case in gallery.cases:
        assert [[bool(p.src) for p in pictures] for _, pictures in case.pictures] == [[True], [True] * 2, [True, False]]


def test_what_was_decided_is_shown(study):
    [case, *_] = gallery_of(NAMES[0], f"{NAMES[0]}+decided").cases
    index, fold = int(re.search(r"slice (\d+) of 6", case.caption)[1]) - 1, int(case.case[-2])
    decided = decide(np.load(study.validation(NAMES[0], fold) / f"{case.case}.npz")["probabilities"]).segmentation
    areas = [f"{name} {np.sum(decided[index] == i) * 0.5:.0f} mm²" for i, name in ((1, "anterior"), (2, "posterior"))]
    assert case.pictures[2][1][0].alt.endswith(f": {', '.join(areas)}.")


def test_a_document_names_where_its_predictions_lie(build):
    study = build(folds=1)
    gallery_of()
    gallery = gallery_of(NAMES[0], paths=[study.validation(NAMES[1]) / "calibration.json"])
    assert gallery.problems == [] and all(picture.src for picture in all_pictures(gallery))


@pytest.mark.parametrize("gone", ["model", "truth"])
def test_what_cannot_be_read_is_said(study, gone):
    truths = study.root / "nnUNet_preprocessed" / DATASET / "gt_segmentations"
    gallery = gallery_of(before=lambda: shutil.rmtree(study.model(NAMES[1]) if gone == "model" else truths))
    assert gallery.problems
    for case in gallery.cases:
        shown = [heading for heading, pictures in case.pictures if pictures and all(p.src for p in pictures)]
        assert len(case.pictures) == (3 if gone == "model" else 2) and len(shown) == (2 if gone == "model" else 0)


def test_pictures_without_millimetres(build):
    study = build(shape=(1, 40, 60), spacing_mm=(999, 1, 1), file_ending=".png", reader="NaturalImage2DIO")
    images = study.root / "nnUNet_raw" / DATASET / "imagesTr"
    from skimage import io

    for path in images.iterdir():
        io.imsave(path, np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8), check_contrast=False)
    gallery = gallery_of(channel=2)
    assert gallery.problems == []
    [case, *_] = gallery.cases
    assert case.caption.startswith("60 × 40 pixels of it") and "pixels" in case.pictures[0][1][0].alt
    assert base64.b64decode(case.pictures[0][1][0].src.partition(",")[2]).startswith(b"\x89PNG")


LISTED = {"images": ["elsewhere/case_00_0000.nii.gz"], "label": "x"}


@pytest.mark.parametrize("listed", [LISTED, 5, [], {"images": []}, {"images": 5}, {"images": [5]}])
def test_images_are_those_that_dataset_json_lists_or_else_found_by_their_names(study, listed):
    raw = study.root / "nnUNet_raw" / DATASET
    if listed is LISTED:
        (raw / "imagesTr").rename(raw / "elsewhere")
    path = study.model(NAMES[0]) / "dataset.json"
    write_json(path, json.loads(path.read_text()) | {"dataset": {"case_00": listed}})
    folder = PredictionFolder.open(study.validation(NAMES[0]))
    assert read_image(folder, "case_00", 0, SHAPE).shape == SHAPE
