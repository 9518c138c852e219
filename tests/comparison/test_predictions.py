"""Which models can be compared, on which cases, and what is said where they cannot."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.cases.record import read_record
from nnunet_nacl.comparison.alignment import align
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.comparison.located import locate
from nnunet_nacl.comparison.methods import label_methods, read_method
from nnunet_nacl.settings import ComparisonSettings
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import checksum
from tests.comparison.models import CONFIGURATION, DATASET, PLANS, Study, measure
from tests.estimators.problems import identity
from tests.metrics.models import map_to_json
from tests.runs.folders import write_json

NAMES = ["nnUNetTrainer", "nnUNetTrainerCE", "nnUNetTrainerNACL"]


def gather(names=NAMES, paths=(), dataset="999", **options) -> Comparison:
    """What the command line does before it computes; without the note on few cases, which every
    fold here gets."""
    methods = label_methods([read_method(str(name)) for name in (*names, *paths)])
    all_options = ComparisonSettings(plans=PLANS, configuration=CONFIGURATION, **options)
    comparison = align(locate(dataset, methods, all_options))
    notes = [note for note in comparison.notes if "no test is made" not in note]
    return replace(comparison, notes=notes)


def remove_case(study: Study, trainer: str, fold: int, case: str) -> None:
    for path in study.validation(trainer, fold).glob(f"{case}*"):
        path.unlink()


@pytest.fixture
def without_fold_1(study) -> Study:
    """CE has no fold 1."""
    shutil.rmtree(study.model(NAMES[1]) / "fold_1")
    return study


def test_a_missing_fold_is_refused(without_fold_1):
    message = (
        r"nnUNetTrainerCE has no fold 1 \(it has 0\).*folds=0.*allow_missing=True to compare on"
        " what all have"
    )
    with pytest.raises(UserError, match=message) as error:
        gather()
    assert "nnUNetTrainerNACL has" not in str(error.value)


def test_folds_that_all_have_can_be_chosen(without_fold_1):
    comparison = gather(folds=["0"])
    assert comparison.folds == ("0",)
    assert not comparison.notes


def test_a_missing_fold_can_be_allowed(without_fold_1):
    comparison = gather(allow_missing=True)
    assert comparison.folds == ("0",)
    assert len(comparison.cases) == 3
    assert "fold 0 only" in comparison.notes[0]
    assert "nnUNetTrainerCE has no fold 1" in comparison.notes[0]


def test_a_fold_that_kept_no_probabilities_is_missing(study):
    for path in study.validation(NAMES[0], 1).rglob("*.npz"):
        path.unlink()
    with pytest.raises(UserError, match="nnUNetTrainer has no fold 1 .*--predict"):
        gather()


def test_a_fold_that_none_has_is_refused(study):
    with pytest.raises(UserError, match="no fold in common: nnUNetTrainer has no fold 7"):
        gather(folds=["7"])


@pytest.fixture
def with_fold_all(study) -> Study:
    """Each trainer has fold_all beside its folds."""
    for trainer in NAMES:
        for fold in (0, 1):
            shutil.copytree(
                study.validation(trainer, fold),
                study.validation(trainer, "all"),
                dirs_exist_ok=True,
            )
    return study


def test_beside_folds_fold_all_is_left_out(with_fold_all):
    assert gather().folds == ("0", "1")


def test_fold_all_alone_is_trained_on_its_cases(with_fold_all):
    for trainer in NAMES:
        for fold in (0, 1):
            shutil.rmtree(with_fold_all.model(trainer) / f"fold_{fold}")
    comparison = gather(allow_training_cases=True)
    assert comparison.folds == ("all",)
    assert len(comparison.cases) == 6
    with pytest.raises(
        UserError, match="fold_all is trained on all cases.*allow_training_cases=True"
    ):
        gather()


def test_a_missing_case_is_refused(study):
    remove_case(study, NAMES[2], 1, "case_12")
    message = "nnUNetTrainerNACL lacks 1 of 6 cases: case_12.*allow_missing=True"
    with pytest.raises(UserError, match=message) as error:
        gather()
    assert "case_12.nii.gz and .npz are missing" in str(error.value)


def test_a_missing_case_can_be_allowed(study):
    remove_case(study, NAMES[2], 1, "case_12")
    comparison = gather(allow_missing=True)
    assert len(comparison.cases) == 5
    assert "case_12" not in comparison.cases
    assert [len(records) for records in comparison.records.values()] == [5, 5, 5]
    assert "the 5 of 6 cases that all have" in comparison.notes[0]
    assert "case_12" in comparison.notes[0]


def test_without_a_case_in_common_nothing_is_compared(study):
    only_case = dict(zip(NAMES, ("case_00", "case_01", "case_02")))
    for trainer, kept in only_case.items():
        for case in {*only_case.values()} - {kept}:
            remove_case(study, trainer, 0, case)
    with pytest.raises(UserError, match="No case is left"):
        gather(folds=["0"], allow_missing=True)


def test_other_labels_are_refused(study):
    path = study.model(NAMES[1]) / "dataset.json"
    content = json.loads(path.read_text())
    write_json(path, content | {"labels": {"background": 0, "head": 1, "tail": 2}})
    with pytest.raises(UserError, match="1 head, 2 tail.*1 anterior, 2 posterior"):
        gather()


def test_other_settings_are_refused(study):
    measure(study.validation(NAMES[1]), EvaluationSettings(n_bins=10))
    with pytest.raises(UserError, match="fold 0 of nnUNetTrainerCE.*n_bins 10, not 15"):
        gather()


def test_settings_of_records_that_are_there_are_kept_for_all(study):
    measure(study.validation(NAMES[1]), EvaluationSettings(n_bins=10))
    for trainer in (NAMES[0], NAMES[2]):
        shutil.rmtree(study.validation(trainer) / "records")
    assert gather(folds=["0"]).settings == EvaluationSettings(n_bins=10)


def test_a_case_in_two_folds_is_refused(study):
    (study.root / "nnUNet_preprocessed" / DATASET / "splits_final.json").unlink()
    for ending in ("npz", "nii.gz"):
        case = study.validation(NAMES[1], 0) / f"case_00.{ending}"
        shutil.copy(case, study.validation(NAMES[1], 1))
    with pytest.raises(UserError, match="case case_00 lies in more than one of the folds 0 and 1"):
        gather()


def copy_predictions(study: Study, trainer: str, fold: int, folder: Path) -> Path:
    """A fold's predictions as a folder of nnUNetv2_predict, without a document."""
    shutil.copytree(study.validation(trainer, fold), folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "records", ignore_errors=True)
    for name in ("dataset.json", "plans.json"):
        shutil.copy(study.model(trainer) / name, folder)
    return folder


@pytest.fixture
def ensemble(study, tmp_path) -> Path:
    """Predictions by NACL of fold 0's cases."""
    return copy_predictions(study, NAMES[2], 0, tmp_path / "ensemble")


def test_folders_are_compared_beside_a_model(study, ensemble):
    validation = study.validation(NAMES[1])
    comparison = gather(NAMES[:1], [f"Ens={ensemble}", validation], folds=["0"])
    assert list(comparison.records) == [NAMES[0], str(ensemble), str(validation)]
    record = read_record(study.validation(NAMES[2]) / "records" / "case_01.npz")
    dice = comparison.values["Dice:1"][str(ensemble)]
    assert dice["case_01"] == record.structures.Dice["1"]


def test_whether_a_folders_networks_saw_its_cases_is_known_of_a_validation_alone(study, ensemble):
    validation = study.validation(NAMES[1])
    comparison = gather(NAMES[:1], [f"Ens={ensemble}", validation], folds=["0"])
    [note] = comparison.notes
    assert note.startswith("Ens: its networks may have been trained on cases")


def test_deleted_probabilities_are_no_obstacle_once_there_are_records(study, ensemble):
    before = gather(NAMES[:1], [f"Ens={ensemble}"], folds=["0"])
    for path in ensemble.glob("*.npz"):
        path.unlink()
    after = gather(NAMES[:1], [f"Ens={ensemble}"], folds=["0"])
    assert after.values.equals(before.values)


def test_paths_alone_need_no_variable_of_nnunet(study, tmp_path, monkeypatch):
    references = study.root / "nnUNet_preprocessed" / DATASET / "gt_segmentations"
    folders = [copy_predictions(study, name, 0, tmp_path / name[-4:]) for name in NAMES[1:]]
    # as nnUNetv2_ensemble leaves it
    plans = (folders[1] / "plans.json").rename(tmp_path / "plans_elsewhere.json")
    for name in study.environment:
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match="no plans.json there.*plans_json"):
        gather([], folders, None, labels=references)
    comparison = gather([], folders, None, labels=references, plans_json=plans)
    assert comparison.name == DATASET
    assert comparison.folds == ()
    assert comparison.where == f"{DATASET}, 3 cases"
    assert len(comparison.notes) == 2
    assert all("no splits_final.json" in note for note in comparison.notes)


@pytest.fixture
def calibrated(study, tmp_path) -> Path:
    """Predictions of fold 0's cases that map.json beside them calibrated, which was fitted to
    case_00 and another case."""
    folder = copy_predictions(study, NAMES[1], 0, tmp_path / "calibrated")
    fitted = map_to_json({"shift": identity(2)}, "shift", {"1": "anterior", "2": "posterior"})
    cross_fit = {}
    for part, case in {"part_0": "case_00", "part_1": "case_77"}.items():
        cross_fit[part] = {"cases": [case], "map": fitted["maps"]["shift"]}
    path = tmp_path / "map.json"
    write_json(path, fitted | {"fitted": {"cross_fit": cross_fit}})
    say_applied(path, folder)
    return folder


def say_applied(map_path: Path, folder: Path) -> None:
    """Name a map as the one that calibrated a folder."""
    applied = {"map": str(map_path), "map_sha256": checksum(map_path)}
    write_json(folder / "calibration_applied.json", applied)


def notes_on_maps(study: Study, calibrated: Path) -> list[str]:
    """Of a comparison with a folder that no map calibrated."""
    raw = copy_predictions(study, NAMES[1], 0, calibrated.parent / "raw")
    notes = gather([], [calibrated, raw], None).notes
    return [note for note in notes if "calibration map" in note]


def test_a_map_that_was_fitted_to_the_cases_is_told(study, calibrated):
    [note] = notes_on_maps(study, calibrated)
    assert "calibration map was fitted to cases" in note
    assert "1 of them (case_00) is" in note


def test_a_map_that_has_changed_since_is_not_that_of_the_folder(study, calibrated):
    path = calibrated.parent / "map.json"
    write_json(path, json.loads(path.read_text()) | {"n_cases": 2})
    assert not notes_on_maps(study, calibrated)


def test_a_map_that_cannot_be_read_is_not_taken_for_none(study, calibrated):
    path = calibrated.parent / "map.json"
    write_json(path, json.loads(path.read_text()) | {"schema_version": 5})
    say_applied(path, calibrated)
    with pytest.raises(UserError, match="map.json: .*schema version 5"):
        notes_on_maps(study, calibrated)


@pytest.fixture
def predicted_by_one_run(study, tmp_path) -> Path:
    """Predictions of all cases by one run of nnUNetv2_predict."""
    folder = copy_predictions(study, NAMES[2], 0, tmp_path / "predicted")
    copy_predictions(study, NAMES[2], 1, folder)
    arguments = {"list_of_lists_or_source_folder": "imagesTr"}
    write_json(folder / "predict_from_raw_data_args.json", arguments)
    return folder


def keep_fold_0(folder: Path) -> None:
    for path in folder.glob("case_1*"):
        path.unlink()


def write_splits(study: Study, train: list[str], val: list[str]) -> None:
    """The same cases in both folds."""
    path = study.root / "nnUNet_preprocessed" / DATASET / "splits_final.json"
    write_json(path, [{"train": train, "val": val}] * 2)


def test_cases_of_several_folds_were_trained_on_by_any_choice_of_folds(predicted_by_one_run):
    paths = [f"Five={predicted_by_one_run}"]
    message = "Five: .*6 of them .*in no single fold's validation.*allow_training_cases=True"
    with pytest.raises(UserError, match=message):
        gather(NAMES[:1], paths)
    note = gather(NAMES[:1], paths, allow_training_cases=True).notes[0]
    assert note.startswith(
        "Five: its networks were trained on cases that they are compared on (6 of them (case_00"
    )


def test_cases_of_one_fold_may_have_been_predicted_by_it(predicted_by_one_run):
    keep_fold_0(predicted_by_one_run)
    [note] = gather(NAMES[:1], [f"Five={predicted_by_one_run}"], folds=["0"]).notes
    assert "may have been trained" in note
    assert "which folds predicted them is not recorded" in note


def test_cases_in_no_split_were_not_trained_on(study, predicted_by_one_run):
    keep_fold_0(predicted_by_one_run)
    write_splits(study, ["case_90"], ["case_91"])
    paths = [predicted_by_one_run, study.validation(NAMES[1])]
    assert not gather([], paths, dataset=None).notes


def test_validation_cases_in_the_training_part_of_their_fold_are_refused(
    study, predicted_by_one_run
):
    keep_fold_0(predicted_by_one_run)
    write_splits(study, ["case_00"], ["case_01", "case_02"])
    paths = [f"CE={study.validation(NAMES[1])}", predicted_by_one_run]
    message = "CE: .*1 of them .case_00. is in the training part of fold 0"
    with pytest.raises(UserError, match=message):
        gather([], paths, dataset=None)
