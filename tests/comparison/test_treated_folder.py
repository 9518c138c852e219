"""Models compared as if their predictions had been calibrated, decided for Dice, or both."""

from __future__ import annotations

import json
from hashlib import sha256

import numpy as np
import pytest

from nnunet_nacl.calibration.decision import decide
from nnunet_nacl.calibration.learned_quality import LearnedQuality
from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.comparison.alignment import align
from nnunet_nacl.comparison.entries import read_entries
from nnunet_nacl.comparison.learned_dice import quality_by_entry
from nnunet_nacl.comparison.resolution import Options, locate, read_documents
from nnunet_nacl.documents.stored_map import loaded_map
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text
from nnunet_nacl.io.locate import find_fold_folders
from nnunet_nacl.json_files import encode
from nnunet_nacl.metrics.calibration_error import ece
from nnunet_nacl.metrics.counting import count_masks
from nnunet_nacl.metrics.overlap import count_overlap
from nnunet_nacl.models.workflow import calibrate
from nnunet_nacl.runs.heldout import HeldOut
from tests.calibration.problems import quality_of
from tests.comparison.models import CONFIGURATION, PLANS, make_study
from tests.runs.folders import CLASSES, REGIONS, read

TRAINER = "nnUNetTrainerNACL"


@pytest.fixture(params=[CLASSES, REGIONS], ids=["classes", "regions"])
def model(request, tmp_path, monkeypatch):
    """Two folds of three cases."""
    study = make_study(tmp_path, {TRAINER: 2.0}, labels=request.param, cases=3, folds=2, shape=(3, 9, 8))
    for name, value in study.environment.items():
        monkeypatch.setenv(name, value)
    return study


def gather(*names: str):
    options = Options(plans=PLANS, configuration=CONFIGURATION)
    located = locate("999", read_entries([("-tr", name) for name in names]), options)
    return located, align(located, read_documents(located))


def fit(study):
    calibration = calibrate(HeldOut(find_fold_folders(study.model(TRAINER))))
    (study.model(TRAINER) / "calibration_map.json").write_text(to_json_text(encode(calibration)))
    return calibration


def by_hand(study, result, maps=None) -> np.ndarray:
    """Decided segmentation of a case, and its probabilities."""
    path = study.validation(TRAINER, int(result.case[-2])) / f"{result.case}.npz"
    probs = np.load(path)["probabilities"]
    probs = probs if maps is None else maps[result.case](probs)
    regions = {"regions": [(1, 2), 2], "region_labels": [1, 2]} if len(probs) == 2 else {}
    return decide(probs, **regions).segmentation, probs


def check_decided(study, dataset, name, maps=None) -> None:
    changed = 0
    for result in dataset.results[name]:
        segmentation, probs = by_hand(study, result, maps)
        truth = read(study.root / "nnUNet_preprocessed" / dataset.name / "gt_segmentations" / f"{result.case}.nii.gz")
        inside = (lambda m: m > 0, lambda m: m == 2) if len(probs) == 2 else (lambda m: m == 1, lambda m: m == 2)
        for own, structure in zip(inside, result.metrics.values()):
            assert structure.overlap == count_overlap(own(truth), own(segmentation))
        regions = len(probs) == 2
        true, delivered = (np.stack([own(one) for own in inside]) if regions else one for one in (truth, segmentation))
        counted = count_masks(probs, true, segmentation=delivered, regions=regions)
        for mask in ("predicted", "all"):
            assert result.ece(mask) == pytest.approx(ece(counted[mask]), abs=1e-12)
        own_folder = study.validation(TRAINER, int(result.case[-2]))
        changed += np.count_nonzero(read(own_folder / f"{result.case}.nii.gz") != segmentation)
    assert changed


def same_probabilities(one, other) -> None:
    """All but what the labels' confidence makes."""
    for name in ("nll", "brier", "class_count", "class_confidence", "class_positive"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9)


def test_decided_segmentations_beside_the_scores_of_the_probabilities(model, monkeypatch):
    name = f"{TRAINER}+decided"
    _, dataset = gather(TRAINER, name)
    check_decided(model, dataset, name)
    for plain, decided in zip(*dataset.results.values()):
        for mask in ("foreground", "all"):
            same_probabilities(decided.bins[mask], plain.bins[mask])
    assert (model.model(TRAINER) / "fold_1" / "validation_decided" / "calibration.json").is_file()
    monkeypatch.setattr("nnunet_nacl.io.treatment.decide", None)  # nothing is measured twice
    _, again = gather(TRAINER, name)
    assert [case.dice for case in again.results[name]] == [case.dice for case in dataset.results[name]]


def test_what_is_not_calibrated_names_the_command(model):
    command = rf"calibrate -d Dataset999_Synthetic -tr {TRAINER} -c {CONFIGURATION}`"
    with pytest.raises(UserError, match=command):
        gather(TRAINER, f"{TRAINER}+calibrated+decided")


def test_each_case_is_calibrated_by_a_map_that_has_not_seen_it(model):
    calibration = fit(model)
    parts, regions = calibration.cross_fit, calibration.regions
    maps = {case: loaded_map(parts[part].map, regions) for case, part in calibration.part_of.items()}
    names = [TRAINER, f"{TRAINER}+calibrated", f"{TRAINER}+calibrated+decided"]
    _, dataset = gather(*names)
    check_decided(model, dataset, names[2], maps)
    for calibrated, both in zip(dataset.results[names[1]], dataset.results[names[2]]):
        for name in ("nll", "brier"):  # of a sample, which here is the whole case, and of all voxels
            sums = (getattr(each.bins["all"], name) for each in (calibrated, both))
            np.testing.assert_allclose(*sums, rtol=2e-3)
    change = calibration.effect["NLL all"]
    for name, expected in zip(names, [change["before"]["mean"], change["after"]["mean"]]):
        nll = [case.bins["all"].nll.mean() / case.bins["all"].n_voxels for case in dataset.results[name]]
        assert np.mean(nll) == pytest.approx(expected, rel=1e-6)


def test_other_maps_are_measured_anew_and_other_cases_refused(model):
    fit(model)
    name = f"{TRAINER}+calibrated+decided"
    gather(TRAINER, name)
    path = model.model(TRAINER) / "calibration_map.json"
    document = json.loads(path.read_text())
    for part in document["cross_fit"].values():
        part["map"] = {"slopes": [[3.0] * 2], "offsets": [[1.0] * 2]}
    path.write_text(json.dumps(document))
    _, dataset = gather(TRAINER, name)
    regions = len(dataset.structures) == 2 and "(1, 2)" in dataset.structures
    check_decided(model, dataset, name, {case: LogOddsMap([3.0] * 2, [1.0] * 2, regions) for case in dataset.cases})
    for part in document["cross_fit"].values():
        part["cases"] = [case for case in part["cases"] if case != dataset.cases[0]]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=f"{dataset.cases[0]} was not calibrated; run .* again"):
        gather(TRAINER, name)


def test_predicted_dice_only_where_calibrate_learned_it(model):
    calibration, values = fit(model), ([0.8] * 6, [0.7] * 6, [1.0] * 6, [1.0] * 6)
    (model.model(TRAINER) / "calibration_map.json").write_text(to_json_text(encode(calibration) | {"quality": None}))
    names = [TRAINER, f"{TRAINER}+calibrated", f"{TRAINER}+calibrated+decided"]
    found = gather(*names)
    assert not any(rows.has_intervals for rows in quality_by_entry(*found, {}).values())
    keys = list(found[1].structures)
    rows = quality_of(dict.fromkeys(keys, values))
    learned = LearnedQuality.learn(rows, list("abcdef"), as_deployed=False)
    document = encode(calibration) | {"quality": {"learned": {"argmax": encode(learned)}}}
    (model.model(TRAINER) / "calibration_map.json").write_text(to_json_text(document))
    predictions = gather(*names)[1].predictions
    named = sha256((model.model(TRAINER) / "calibration_map.json").read_bytes()).hexdigest()
    assert [predictions[name]["1"].get("map_sha256") for name in names] == [None, named, named]
    predicted = quality_by_entry(*found, {})
    assert [predicted[name].has_intervals for name in names] == [False, True, False]
    apart = predicted[names[1]]
    assert apart.level == 0.9 and np.isfinite(apart.predicted[..., 0]).all()
