"""Which cases are shown, what their pictures say, and what happens where files are missing."""

from __future__ import annotations

import base64
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_nacl.cases.heldout import HeldOut
from nnunet_nacl.cases.labels import smallest_type
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.json_files import encode
from nnunet_nacl.show.case_files import kept_slices, open_folder, read_confidence, read_truth
from nnunet_nacl.show.gallery import make_gallery, pick_cases
from tests.cases.folders import write_image, write_json
from tests.show.study import make_study


def gallery_of(study, **arguments):
    return make_gallery(study.data["datasets"][0], study.data["trainers"], n_bins=15, **arguments)


def all_pictures(gallery):
    for case in gallery.cases:
        yield from case.pictures
        for _, _, pictures in case.methods:
            yield from pictures


def test_cases_are_picked_by_the_mean_over_methods():
    values = {
        "Dice": {"a": [0.9, 0.5, 0.7, 0.8, None], "b": [0.3, 0.8, 0.7, 0.9, 1.0]},
        "ECE:foreground": {"a": [0.1, 0.2, 0.3, 0.4, 0.1], "b": [0.1, 0.2, 0.3, 0.4, 0.9]},
    }
    assert pick_cases({"cases": list("vwxyz"), "values": values}, ["a", "b"]) == {
        "y": ("best mean Dice",),  # 0.85; z, where a has no value, is in no order
        "x": ("median mean Dice", "median ECE"),  # 0.70, the better one of the two in the middle; 0.3
        "v": ("worst mean Dice", "lowest ECE"),
        "z": ("highest ECE",),
    }


def test_few_cases_are_shown_once():
    values = {"Dice": {"a": [0.5]}, "ECE:foreground": {"a": [0.5]}}
    [(case, reasons)] = pick_cases({"cases": ["x"], "values": values}, ["a"]).items()
    assert case == "x" and len(reasons) == 6
    assert pick_cases({"cases": ["x"], "values": {"Dice": {"a": [None]}}}, ["a"]) == {}


def test_every_picture_is_there_and_says_what_it_shows(make_validated, labels):
    study = make_study(make_validated(labels=labels, cases=2, shape=(6, 14, 20)), labels=labels)
    gallery = gallery_of(study)
    assert gallery.problems == [] and len(gallery.cases) == 2
    for case in gallery.cases:
        assert len(case.pictures) == 2 and len(case.methods) == 3
        sizes = {(p.width, p.height) for p in case.pictures}
        for label, scores, panels in case.methods:
            assert [p.title for p in panels] == ["Prediction", "Confidence", "Reliability"]
            assert all(label in p.alt for p in panels) and re.match(r"Dice 0\.\d{3}, ECE 0\.\d{3}", scores)
            sizes |= {(p.width, p.height) for p in panels[:2]}
        assert len(sizes) == 1, "all slices of a case have the same size"
        truth = case.pictures[1].alt
        for name in labels:
            assert (name in truth) == (name not in ("background", "ignore"))
        assert ("striped" in truth) == ("ignore" in labels)
        assert "axial" in case.caption and "of 6" in case.caption  # spacing 2 mm across 6 slices
    assert all(picture.src.startswith("data:image/") for picture in all_pictures(gallery))


def test_areas_and_confidence_are_those_of_the_files(make_validated):
    model = make_validated(cases=1, folds=1)
    study = make_study(model)
    empty = study.models["nnUNetTrainerNACL"].validation() / "case_00.nii.gz"
    write_image(np.zeros((6, 14, 12), np.uint8), empty, (2.0, 1.0, 0.5))  # so that they differ where structures are
    [case] = gallery_of(study).cases
    index = int(re.search(r"slice (\d+) of 6", case.caption)[1]) - 1
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(model.references / "case_00.nii.gz")))
    segmentations = [
        sitk.GetArrayFromImage(sitk.ReadImage(str(m.validation() / "case_00.nii.gz"))) for m in study.models.values()
    ]
    differing = np.any([s != segmentations[0] for s in segmentations], axis=0).sum(axis=(1, 2))
    assert index == differing.argmax() and f"({differing[index]} voxels" in case.caption
    areas = [f"{name} {np.sum(truth[index] == i) * 0.5:.0f} mm²" for i, name in ((1, "anterior"), (2, "posterior"))]
    assert case.pictures[1].alt.startswith(f"Ground truth in the same slice: {', '.join(areas)}.")
    for (_, _, panels), m, segmentation in zip(case.methods, study.models.values(), segmentations):
        wrong = np.sum(segmentation[index] != truth[index]) * 0.5
        assert f"{wrong:.0f} mm² differ" in panels[0].alt
        confidence = np.load(m.validation() / "case_00.npz")["probabilities"].max(0)[index][truth[index] > 0]
        assert f"mean {confidence.mean():.2f} and lowest {confidence.min():.2f} inside" in panels[1].alt


def test_the_reliability_is_that_of_calibration_json(make_validated):
    from nnunet_nacl.cases.evaluate import evaluate_folder

    study = make_study(make_validated(cases=1, folds=1))
    dataset = study.data["datasets"][0]
    for name, model in study.models.items():
        plane, foreground = read_confidence(open_folder(dataset, name, "0"), "case_00", 0, 3, 15)
        expected = evaluate_folder(model.validation()).cases[0].stats["foreground"]
        assert encode(foreground) == encode(expected)
        assert np.array_equal(plane, np.load(model.validation() / "case_00.npz")["probabilities"][:, 3].max(0))


def test_without_images_the_rest_is_shown(study, monkeypatch):
    monkeypatch.delenv("nnUNet_raw")
    gallery = gallery_of(study)
    assert gallery.problems == ["the environment variable nnUNet_raw is not set; the images lie there."]
    missing = [picture for picture in all_pictures(gallery) if not picture.src]
    assert {picture.alt for picture in missing} == {"The image is missing."} and len(missing) == len(gallery.cases)


def test_a_channel_that_is_not_there(study):
    problems = gallery_of(study, channel=3).problems
    assert problems and all("no channel 3; choose another -channel" in problem for problem in problems)


def test_without_npz_the_slices_that_were_kept_are_shown(study):
    model = study.models["nnUNetTrainerCE"]
    held_out = HeldOut({fold: PredictionFolder.open(model.validation(fold)) for fold in ("0", "1")})
    held_out.evaluate(None, None)
    for case in list(held_out.files):
        held_out.sample(case)
    before = {case.case: case.methods for case in gallery_of(study).cases}
    exact = np.load(model.validation(0) / "case_00.npz")["probabilities"].max(0)
    for fold in (0, 1):
        for path in model.validation(fold).glob("*.npz"):
            path.unlink()
    gallery = gallery_of(study)
    assert gallery.problems == []
    for case in gallery.cases:
        assert "of the slices that were kept" in case.caption
        for name, _, panels in case.methods:
            assert all(picture.src for picture in panels)
            if name == "CE":  # the reliability is that of the whole case, whatever slice is shown
                (same,) = [own[2].alt for other, _, own in before[case.case] if other == name]
                assert panels[2].alt == same
    folder = open_folder(study.data["datasets"][0], "nnUNetTrainerCE", "0")
    kept = kept_slices(folder, "case_00", 0)
    assert 1 < len(kept) < 6
    for index in kept:
        plane, _ = read_confidence(folder, "case_00", 0, index, 15)
        np.testing.assert_allclose(plane, exact[index], atol=0.5 / 255 + 1e-6)


def test_without_npz_confidence_and_reliability_are_missing(study):
    model = study.models["nnUNetTrainerCE"]
    for fold in (0, 1):
        for path in model.validation(fold).glob("*.npz"):
            path.unlink()
    gallery = gallery_of(study)
    assert gallery.problems and all(".npz is missing" in problem for problem in gallery.problems)
    for case in gallery.cases:
        for name, _, panels in case.methods:
            assert [bool(picture.src) for picture in panels] == [True, name != "CE", name != "CE"]


def test_without_a_segmentation_file_the_probabilities_give_it(study):
    [*paths] = (study.models["nnUNetTrainerCE"].validation(0)).glob("*.nii.gz")
    before = [picture.alt for picture in all_pictures(gallery_of(study))]
    for path in paths:
        path.unlink()
    after = gallery_of(study)
    assert after.problems == [] and [picture.alt for picture in all_pictures(after)] == before


@pytest.mark.parametrize("what", ["variable", "model", "truth"])
def test_without_folders_the_gallery_says_so(study, monkeypatch, what):
    if what == "variable":
        monkeypatch.delenv("nnUNet_results")
    elif what == "model":
        for model in study.models.values():
            shutil.rmtree(model.folder)
    else:
        shutil.rmtree(study.models["nnUNetTrainer"].references)
    gallery = gallery_of(study)
    words = {"variable": "set nnUNet_results to where", "model": "set nnUNet_results to where", "truth": "ground truth"}
    assert gallery.problems and words[what] in gallery.problems[0] and not list(all_pictures(gallery))
    assert gallery.cases and all(len(case.methods) == 3 for case in gallery.cases)


def test_one_missing_model_leaves_the_others(study):
    shutil.rmtree(study.models["nnUNetTrainerNACL"].folder)
    gallery = gallery_of(study)
    assert any("nnUNetTrainerNACL" in problem for problem in gallery.problems)
    for case in gallery.cases:
        assert [all(p.src for p in panels) for _, _, panels in case.methods] == [True, True, False]


def test_models_outside_of_nnunet_results(study, monkeypatch):
    predictions = study.data["datasets"][0]["predictions"]
    for name, model in study.models.items():
        predictions[name] = {fold: {"folder": str(model.validation(fold))} for fold in predictions[name]}
    monkeypatch.delenv("nnUNet_results")
    assert gallery_of(study).problems == []


def test_pictures_without_millimetres(make_validated):
    model = make_validated(
        cases=1, shape=(1, 40, 60), spacing_mm=(999, 1, 1), file_ending=".png", reader="NaturalImage2DIO"
    )
    images = model.root / "nnUNet_raw" / model.dataset / "imagesTr"
    images.mkdir(parents=True)
    colours = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    from skimage import io

    io.imsave(images / "case_00_0000.png", colours, check_contrast=False)
    dataset = {
        "name": model.dataset,
        "cases": ["case_00"],
        "case_fold": {"case_00": "0"},
        "folds": ["0"],
        "structures": {},
        "values": {"Dice": {"a": [0.5]}},
        "predictions": {"a": {"0": {"folder": str(model.validation())}}},
    }
    for channel in (0, 2):
        gallery = make_gallery(dataset, [{"name": "a", "label": "A"}], n_bins=15, channel=channel)
        assert gallery.problems == []
        [case] = gallery.cases
        assert "60 × 40 pixels" in case.caption and "turned as it is stored" in case.caption
        assert "pixels" in case.pictures[1].alt and "mm" not in case.pictures[1].alt
        assert base64.b64decode(case.pictures[0].src.partition(",")[2]).startswith(b"\x89PNG")


def test_images_that_dataset_json_lists(study):
    model = study.models["nnUNetTrainer"]
    raw = model.root / "nnUNet_raw" / model.dataset
    (raw / "imagesTr").rename(raw / "elsewhere")
    cases = study.data["datasets"][0]["cases"]
    listed = {case: {"images": [f"elsewhere/{case}_0000.nii.gz"], "label": "x"} for case in cases}
    for each in study.models.values():
        dataset = json.loads((each.folder / "dataset.json").read_text())
        write_json(each.folder / "dataset.json", dataset | {"dataset": listed})
    assert gallery_of(study).problems == []


@pytest.mark.parametrize("listed", [5, [], {"images": []}, {"images": 5}, {"images": [5]}])
def test_images_that_a_damaged_dataset_json_lists_are_looked_for_by_their_names(study, listed):
    cases = study.data["datasets"][0]["cases"]
    for each in study.models.values():
        dataset = json.loads((each.folder / "dataset.json").read_text())
        write_json(each.folder / "dataset.json", dataset | {"dataset": dict.fromkeys(cases, listed)})
    assert gallery_of(study).problems == []


def test_an_image_of_another_shape_is_not_shown(study):
    model = study.models["nnUNetTrainer"]
    for path in (model.root / "nnUNet_raw" / model.dataset / "imagesTr").iterdir():
        write_image(np.zeros((3, 4, 5), np.float32), path, (1, 1, 1))
    gallery = gallery_of(study)
    assert gallery.problems and all("shape (3, 4, 5), the ground truth has (6, 14, 12)" in p for p in gallery.problems)


def test_labels_above_the_largest_short_integer_do_not_wrap():
    array = np.array([[[0, 32767, 40000, 70000]]])
    folder = SimpleNamespace(
        read_segmentation=lambda path: (array, {"spacing": (1, 1, 1)}),
        files=lambda case: SimpleNamespace(truth="truth"),
        labels=None,
    )
    assert read_truth(folder, "case").truth.tolist() == array.tolist() == smallest_type(array).tolist()
