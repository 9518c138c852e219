"""research/results: pages hold what results.csv has, and the quick fits of measure.py are those of
the package."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from dataclasses import replace
from importlib import import_module
from types import CodeType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from nnunet_nacl.estimators.fitting import fit_temperature
from nnunet_nacl.estimators.intervals import StructureEstimate
from nnunet_nacl.estimators.unlike import CalibrationProfiles
from nnunet_nacl.estimators.voxels import Voxels
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.nnunet.profile import profile_names
from tests.pages import ROOT
from tests.runs.lung_nodules import (
    MAKER,
    OTHER_SCANNER,
    OUTER_CASES,
    PATIENTS,
    SCANNER_CASES,
    VALIDATION_CASES,
    make_small_study,
)

sys.path.insert(0, str(ROOT / "research" / "results"))  # its scripts import each other
MODULES = {
    path.stem: import_module(path.stem) for path in (ROOT / "research" / "results").glob("*.py")
}
cases, losses, measure, render, rows = (
    MODULES[name] for name in ("cases", "losses", "measure", "render", "rows")
)
PARTS = (
    "records",
    "learn",
    "calibration",
    "patients",
    "raters",
    "recall",
    "unlike",
    "own",
    "weighted",
    "losses",
    "scans",
    "slices",
    "intervals",
)


def test_a_statistic_is_that_of_scikit_learn_and_of_a_look_at_the_list() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    trust, bad, weights = (
        rng.integers(0, 8, 60) / 8,
        rng.random(60) < 0.3,
        rng.integers(0, 3, (4, 60)).astype(float),
    )
    expected = [metrics.roc_auc_score(bad, -trust, sample_weight=each) for each in weights]
    assert MODULES["scans"].auroc(weights, trust, bad) == pytest.approx(expected)
    # ten scans, bad ones at places 0, 2 and 5: two thirds of them are seen after three scans, all
    # after six
    bad, trust = np.isin(np.arange(10), (0, 2, 5)), np.arange(10) / 10
    assert MODULES["scans"].flagged_to_find(np.ones((1, 10)), trust, bad, 2 / 3) == pytest.approx(
        0.3
    )
    assert MODULES["scans"].flagged_to_find(np.ones((1, 10)), trust, bad) == pytest.approx(0.6)


def test_areas_of_draws_are_those_of_the_cases_that_were_drawn() -> None:
    risk_coverage = import_module("nnunet_nacl.metrics.risk_coverage")
    patients = ["a", "a", "b", "c", "c", "c"]
    dice = np.array([0.9, 0.4, 0.7, 0.2, 0.8, 0.6])
    trust = np.array([3.0, 1, 2, 2, 5, 0])
    table = pd.DataFrame({"case": range(6), "patient": patients, "dice": dice, "volume": 1.0})
    table = table.assign(
        structure="lesion",
        present=np.nan,
        predicted_dice=trust,
        predicted_dice_as_trained=trust,
        entropy=trust,
        members_dice=np.nan,
    )
    scans = MODULES["scans"]
    areas = {(row["method"], row["quantity"]): row for row in scans.area_rows(table)}
    best = risk_coverage.aurc(dice, 1 - dice)
    row = areas[scans.PREDICTED, "AURC"]
    assert row["value"] == pytest.approx(risk_coverage.aurc(trust, 1 - dice))
    assert (row["n_patients"], row["n_cases"]) == (3, 6)
    assert areas[scans.PREDICTED, "excess AURC"]["value"] == pytest.approx(row["value"] - best)
    same = areas[f"{scans.AS_TRAINED} less {scans.PREDICTED}", "AURC"]
    assert (same["value"], same["low"], same["high"]) == (0, 0, 0)
    assert areas[f"{scans.ENTROPY} less {scans.PREDICTED}", "AURC"]["value"] > 0
    # patient a twice, b not at all, c once
    drawn = [0, 0, 1, 1, 3, 4, 5]
    weights = np.array([[2, 2, 0, 1, 1, 1]])
    expected = risk_coverage.aurc(trust[drawn], 1 - dice[drawn])
    assert scans.areas_of_draws(weights, trust, 1 - dice) == pytest.approx([expected])


def test_with_one_scan_a_patient_intervals_are_those_of_mapie() -> None:
    pytest.importorskip("mapie")
    mapie_rows = MODULES["mapie_rows"]
    rng = np.random.default_rng(0)
    predicted = rng.random(60)
    scans = pd.DataFrame({"predicted_dice": predicted, "patient": [str(i) for i in range(60)]})
    scans["dice"] = np.clip(predicted - 0.05 + rng.normal(0, 0.1, 60), 0, 1)
    learning, others = scans[:39], scans[39:]
    ends = mapie_rows.jackknife_ends(learning, others)
    expected = mapie_rows.ENDS[mapie_rows.MAPIE_SHIFT](learning, others)
    assert ends == pytest.approx(expected) and (ends[:, 0] < ends[:, 1]).all()


def test_the_error_of_calibrated_voxels_is_no_more_than_chance_left() -> None:
    rng = np.random.default_rng(0)
    count = np.full((50, 3), 20.0)
    confidence, correct = count * [0.2, 0.5, 0.8], rng.binomial(20, [0.2, 0.5, 0.8], (50, 3))
    row = rows.pooled_gap_row(count, confidence, correct, [str(i) for i in range(50)])
    assert (
        row["low"] == 0 and row["value"] < np.abs(confidence - correct).sum(0).sum() / count.sum()
    )
    assert rows.pooled_gap_row(count, confidence + 0.1 * count, correct, range(50))[
        "value"
    ] == pytest.approx(0.1, abs=0.02)


def test_voxels_put_together_teach_the_same_map() -> None:
    rng, found = np.random.default_rng(0), []
    for n in (1000, 3000):
        odds = torch.from_numpy(rng.normal(0, 3, (1, n))).float()
        target = torch.from_numpy(rng.random(n)) < torch.sigmoid(odds[0] / 2)
        weights = torch.from_numpy(rng.integers(1, 5, n)).double()
        found.append(Voxels(odds, (odds[0] > 0).long(), target.long(), weights))
    merged = cases.pooled([cases.on_grid(each) for each in found])
    assert merged.log_odds.shape[1] < 1000
    slopes = [fit_temperature(each).own_slopes.item() for each in (found, [merged])]
    assert slopes[0] == pytest.approx(slopes[1], abs=0.002)


def test_weights_hold_where_profiles_shift_and_even_ones_are_those_of_the_package(
    monkeypatch,
) -> None:
    weighted_limits = MODULES["weighted_limits"]
    monkeypatch.setattr(weighted_limits, "FOLDS", 4)
    monkeypatch.setattr(weighted_limits, "INNER_FOLDS", 2)
    rng = np.random.default_rng(0)
    n = 600
    calibration = rng.normal(0, 1, (n, 2))
    new = rng.normal([1, 0], 1, (n, 2))
    patients = [str(i // 2) for i in range(n)]
    new_patients = [f"new {i // 2}" for i in range(n)]
    spread = 0.05 * np.exp(calibration[:, 0])  # of the error: larger where there are more new ones
    difference = rng.normal(0, spread)
    estimate = StructureEstimate.fit(np.full(n, 0.5), 0.5 + difference, patients)
    patient, even = np.arange(n) // 2, np.ones(n)
    ends = weighted_limits.interval_ends(difference, patient, even, even[:1])
    assert 0.5 + ends[0] == pytest.approx(estimate.predict(0.5)[1:])

    weights = weighted_limits.weigh(calibration, new, patients, new_patients)
    truth = rng.normal(0, 0.05 * np.exp(new[:, 0]))
    inside = []
    for of_calibration, of_new in ((even, even), (weights.calibration, weights.new)):
        low, high = weighted_limits.interval_ends(difference, patient, of_calibration, of_new).T
        inside.append(np.mean((low <= truth) & (truth <= high)))
    assert inside[0] < 0.75 and 0.8 < inside[1] < 0.95
    no_end = weighted_limits.interval_ends(difference, patient, even, np.array([n]))
    assert np.isinf(no_end).all(), "the new patient weighs more than a tenth"


def test_the_error_of_structures_is_the_mean_over_filled_bins_without_the_background() -> None:
    n_bins = 4
    count, confidence, positive = (np.zeros((3, n_bins)) for _ in range(3))
    count[:, 0], confidence[:, 0], positive[:, 0] = 10, 1.0, (9, 1, 3)  # gaps .8, 0 and .2
    count[1:, 3], confidence[1:, 3], positive[1:, 3] = 5, 4.5, (2, 4)  # gaps .5 and .1
    empty = BinStats.zeros(3, n_bins=n_bins)
    stats = replace(empty, class_count=count, class_confidence=confidence, class_positive=positive)
    expected = ((0 + 0.5) / 2 + (0.2 + 0.1) / 2) / 2
    assert MODULES["marginal_ace"].structures_ace(stats) == pytest.approx(expected)


def test_small_negative_values_keep_their_sign_and_zero_has_none() -> None:
    fixed = MODULES["tables"].fixed
    assert [fixed(-0.0022, 4), fixed(-0.0022, 2), fixed(-0.002, 3)] == ["-0.0022", "0.00", "-0.002"]


def functions_of(module) -> dict[CodeType, str]:
    """Code of each function, method and property that a module defines -> its name."""
    found = {}
    for owner in (module, *(each for _, each in inspect.getmembers(module, inspect.isclass))):
        if getattr(owner, "__module__", module.__name__) != module.__name__:
            continue  # imported
        for name, member in vars(owner).items():
            function = getattr(member, "fget", None) or getattr(member, "func", None) or member
            code = getattr(function, "__code__", None)
            if code is not None and code.co_filename == module.__file__:
                found[code] = (
                    f"{module.__name__}.{code.co_qualname if sys.version_info >= (3, 11) else name}"
                )
    return found


class EvenCalibrator:
    """In place of a calibrator of fiducio: it changes nothing."""

    def __init__(self, optimizer: str) -> None:
        self.optimizer = optimizer

    def fit(self, log_probs: torch.Tensor, target: torch.Tensor) -> EvenCalibrator:
        assert log_probs.shape == (len(target), 2)
        return self

    def transform(self, log_probs: torch.Tensor) -> torch.Tensor:
        return log_probs.exp()


class EvenController:
    """In place of MAPIE's controller: all of a slice."""

    def __init__(self, predict_function, risk, target_level, predict_params) -> None:
        self.n_levels = len(target_level)
        self.n_learned = 0

    def compute_risks(self, probs: np.ndarray, truth: np.ndarray) -> None:
        assert probs.shape[:2] == (len(truth), 1) and probs[0].size == truth[0].size
        assert truth.any(1).all()
        self.n_learned += len(truth)

    def compute_best_predict_param(self) -> None:
        assert self.n_learned > 0

    def predict(self, probs: np.ndarray) -> np.ndarray:
        return np.ones((len(probs), self.n_levels, *probs.shape[2:]), bool)


class EvenRegressor:
    """In place of MAPIE's regressor: its regressor's value, less and plus a tenth."""

    def __init__(self, regressor, confidence_level, method, cv) -> None:
        self.regressor = regressor

    def fit_conformalize(self, predicted: np.ndarray, true: np.ndarray, groups) -> None:
        assert len(groups) == len(predicted)
        self.regressor.fit(predicted, true)

    def predict_interval(self, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value = self.regressor.predict(predicted)
        return value, np.stack([value - 0.1, value + 0.1], 1)[..., None]


def other_scans() -> pd.DataFrame:
    """Twelve scans of another data set, six of them bad."""
    rng = np.random.default_rng(1)
    n = 12
    dice = np.where(np.arange(n) % 2, 0.9, 0.2)
    predicted = np.clip(dice + rng.normal(0, 0.1, n), 0.01, 0.99)
    columns = {
        "dataset": "Hippocampus",
        "trainer": "DiceCE_100epochs_50iters",
        "configuration": "2d_small",
        "training": "folds 0 1 2 3 4",
        "cases": "folds",
        "case": [f"scan_{i}" for i in range(n)],
        "patient": [f"patient_{i}" for i in range(n)],
        "bad": 0.8,
        "structure": "Anterior",
        "dice": dice,
        "volume": 2.0,
        "true_volume": 1.5,
        "predicted_dice": predicted,
        "dice_low": predicted - 0.1,
        "dice_high": predicted + 0.1,
        "volume_low": 1.0,
        "volume_high": 3.0,
        "predicted_dice_as_trained": predicted,
        "present": np.nan,
        "entropy": 1 - predicted,
        "members_dice": predicted,
        "flagged": (predicted < 0.5).astype(float),
    }
    return pd.DataFrame(columns)


def profiles_like_none(records, patients, model) -> CalibrationProfiles:
    """In place of those of preprocessed images, which the small study has not."""
    names = profile_names(model.labels, model.dataset.channel_names)
    values = np.random.default_rng(2).normal(size=(len(records), len(names)))
    return CalibrationProfiles.learn(names, values, patients)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A small study, and folders in which the scripts write; names of the functions that nobody has
    called yet."""
    schedule = losses.SCHEDULE
    study = make_small_study(
        tmp_path,
        (
            f"DiceCE_{schedule}",
            f"NACL_{schedule}",
            f"NACL_{schedule}_seed2",
            f"DiceCE_anneal_{MODULES['tables'].AUGMENTED_SCHEDULE}",
        ),
    )
    for name, value in study.environment.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setattr(f"nnunetv2.paths.{name}", value)
    results = tmp_path / "research" / "results"
    results.mkdir(parents=True)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.ipynb"))
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    for module in (rows, render):
        monkeypatch.setattr(module, "HERE", results)
    monkeypatch.setattr(render, "ROOT", tmp_path)
    monkeypatch.setattr(render, "IMAGES", tmp_path / "docs" / "images")
    for module in (rows, MODULES["calibration_rows"]):
        monkeypatch.setattr(module, "DRAWS", 20)
    monkeypatch.setattr(MODULES["few_patients"], "SIZES", (4,))
    monkeypatch.setattr(MODULES["few_patients"], "N_DRAWS", 2)
    monkeypatch.setattr(MODULES["few_patients"], "OWN_SIZES", (6,))
    monkeypatch.setattr(MODULES["few_patients"], "N_OWN_DRAWS", 2)
    monkeypatch.setattr(import_module("nnunet_nacl.calibration.tune"), "FEWEST_PATIENTS", 5)
    monkeypatch.setattr(MODULES["level_of_tests"], "N_SIMULATIONS", 2)
    for name in ("other_scanner", "weighted_limits"):
        monkeypatch.setattr(MODULES[name], "learn_profiles", profiles_like_none)
    monkeypatch.setattr(MODULES["weighted_limits"], "FOLDS", 3)
    monkeypatch.setattr(MODULES["weighted_limits"], "INNER_FOLDS", 2)
    monkeypatch.setattr(MODULES["weighted_limits"], "FEWEST_PATIENTS", 5)
    monkeypatch.setitem(
        sys.modules, "fiducio", SimpleNamespace(CDC=EvenCalibrator, CMSop=EvenCalibrator)
    )
    monkeypatch.setitem(
        sys.modules, "mapie.regression", SimpleNamespace(CrossConformalRegressor=EvenRegressor)
    )
    controller = SimpleNamespace(SemanticSegmentationController=EvenController)
    monkeypatch.setitem(sys.modules, "mapie.risk_control", controller)
    other_scans().to_csv(results / "other_scans.csv", index=False)
    return study


def test_every_function_runs_and_every_table_has_its_values(
    measured, tmp_path, monkeypatch, capsys
) -> None:
    not_called = {}
    for module in MODULES.values():
        not_called |= functions_of(module)
    assert len(not_called) > 70, "else they were not found"

    def run(module, *arguments: str) -> int | None:
        monkeypatch.setattr(sys, "argv", [module.__file__, *arguments])
        sys.setprofile(lambda frame, event, value: not_called.pop(frame.f_code, None))
        try:
            return module.main()
        finally:
            sys.setprofile(None)

    run(measure, *PARTS, *measured.arguments, "--outer")
    run(measure, "learn", *measured.arguments, "-manufacturer", MAKER, "-name", "LIDC-GE")
    augmented = MODULES["tables"].AUGMENTED_SCHEDULE
    compared = ["-schedule", augmented, "-losses", "DiceCE", "DiceCE_anneal"]
    run(measure, "losses", "ace", "decisions", *measured.arguments, *compared)
    tested = [*measured.arguments, "-schedule", augmented, "-losses", "DiceCE"]
    tuned_networks = MODULES["tuned_networks"]
    thresholds_of = tuned_networks.thresholds_of_decisions

    def argmax_after(*arguments) -> dict[str, float]:
        """The study has no preprocessed cases that tuned networks could predict."""
        return dict.fromkeys(thresholds_of(*arguments), 0.5)

    monkeypatch.setattr(tuned_networks, "thresholds_of_decisions", argmax_after)
    run(measure, "tuned", *tested)
    groups = dict.fromkeys(PATIENTS.values(), "ill")
    (measured.task / "groups.json").write_text(json.dumps(groups), encoding="utf-8")
    published = pd.DataFrame({"case": list(OUTER_CASES), "dice_nodule": 0.5, "ace_nodule": 0.1})
    published.assign(loss="published").to_csv(tmp_path / "published.csv", index=False)
    of_published = ["-name", "ACDC", "-published", str(tmp_path / "published.csv")]
    run(measure, "heart", *tested, *of_published, "--outer")
    of_maker = measured.copy_without("nodule_5")
    trained_on = ["-trained_on", MAKER, "-name", "LIDC-GE-networks", "--outer"]
    run(measure, "records", "learn", "recall", *of_maker, *trained_on)
    run(MODULES["level_of_tests"])
    run(SimpleNamespace(main=fill_every_table, __file__=""))
    assert render_twice(run) == [0, 0]
    plans = tmp_path / "nnUNetPlans.json"
    plans.write_text(json.dumps({"configurations": {"2d": planned_2d()}}), encoding="utf-8")
    run(MODULES["study_plans"], str(tmp_path), "2d_small")
    small = json.loads(plans.read_text(encoding="utf-8"))["configurations"]["2d_small"]
    assert small["architecture"]["arch_kwargs"]["features_per_stage"] == [12, 24, 48, 48]
    assert sorted(not_called.values()) == []

    scans = rows.read_csv("lidc_scans.csv").set_index("case")
    assert set(scans.index) == set(VALIDATION_CASES | OUTER_CASES | SCANNER_CASES)
    assert scans.present[list(OUTER_CASES)].between(0, 1).all(), (
        "three patients with and three without are known"
    )
    assert scans.predicted_dice[scans.volume > 0].between(0, 1).all()
    with pytest.raises(ValueError, match="1 validation cases, such as nodule_5, are not of maker"):
        run(measure, "learn", *measured.arguments, *trained_on)  # networks of all folds
    values = rows.results()
    present = values[values.value.notna()]
    of_maker_alone = present[present.dataset == "LIDC-GE-networks"]
    assert set(of_maker_alone.cases) == {"folds", "outer", "other maker"}
    assert set(present.cases) >= {"folds", "outer", OTHER_SCANNER}
    expected = {
        "NLL predicted",
        "gap to share of raters",
        "missed",
        "refused, share of draws",
        "AUROC",
        "excess AURC",
        "missed, mean over slices",
        "p of the batch, by scans",
        "NLL all, mean over draws",
        "effective calibration patients",
    }
    assert expected <= set(present.quantity)
    trained = set(values.trainer[values.quantity == "Dice where present"])
    assert trained == {
        f"DiceCE_{losses.SCHEDULE}",
        f"NACL_{losses.SCHEDULE}",
        f"DiceCE_{augmented}",
        f"DiceCE_anneal_{augmented}",
    }
    of_augmented = values[(values.trainer == f"DiceCE_{augmented}") & (values.dataset == "LIDC")]
    of_scores = of_augmented[(of_augmented.quantity == "NLL all") & (of_augmented.method == "map")]
    assert set(of_scores.cases) >= {"folds", "each fold"}, "one would replace the other"


def fill_every_table() -> None:
    """Make all tables, also those that no page has yet."""
    values = MODULES["tables"].Values(rows.results())
    for table in MODULES["tables"].TABLES.values():
        table(values)


def render_twice(run) -> list[int]:
    """Exit statuses of writing the pages, and of the check whether they are as they would be
    written."""
    return [run(render), run(render, "--check")]


def planned_2d() -> dict:
    """A configuration of nnU-Net in so far as a smaller one is made from it."""
    kwargs = {
        "n_stages": 5,
        "features_per_stage": [32, 64, 128, 256, 512],
        "kernel_sizes": [[3, 3]] * 5,
        "strides": [[1, 1]] + [[2, 2]] * 4,
        "n_conv_per_stage": [2] * 5,
        "n_conv_per_stage_decoder": [2] * 4,
    }
    return {
        "data_identifier": "nnUNetPlans_2d",
        "batch_size": 12,
        "patch_size": [192, 160],
        "spacing": [1.0, 1.0],
        "median_image_size_in_voxels": [180.0, 150.0],
        "architecture": {"arch_kwargs": kwargs},
    }
