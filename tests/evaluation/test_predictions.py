"""Which models can be compared, on which cases, and what is said where they cannot."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.cases.record import read_record
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.dataset import align, locate
from nnunet_nacl.evaluation.methods import ComparisonOptions, label_methods, read_method
from nnunet_nacl.files import checksum
from tests.calibration.problems import identity
from tests.evaluation.models import CONFIGURATION, DATASET, PLANS, measure
from tests.metrics.models import map_to_json
from tests.runs.folders import write_json

NAMES = ["nnUNetTrainer", "nnUNetTrainerCE", "nnUNetTrainerNACL"]


def gather(names=NAMES, paths=(), dataset="999", **options):
    """What the command line does before it computes; without the note on few cases, which every
    fold here gets."""
    methods = label_methods([read_method(str(name)) for name in (*names, *paths)])
    located = locate(
        dataset, methods, ComparisonOptions(plans=PLANS, configuration=CONFIGURATION, **options)
    )
    found = align(located)
    return replace(found, notes=[note for note in found.notes if "no test is made" not in note])


def remove_case(study, trainer: str, fold: int, case: str) -> None:
    for path in study.validation(trainer, fold).glob(f"{case}*"):
        path.unlink()


def test_a_missing_fold_is_listed(study):
    shutil.rmtree(study.model(NAMES[1]) / "fold_1")
    with pytest.raises(
        UserError, match=r"nnUNetTrainerCE has no fold 1 \(it has 0\).*-f 0.*--allow-missing"
    ) as error:
        gather()
    assert "nnUNetTrainerNACL has" not in str(error.value)
    assert gather(folds=["0"]).folds == ("0",) and not gather(folds=["0"]).notes
    found = gather(allow_missing=True)
    assert found.folds == ("0",) and len(found.cases) == 3
    assert "fold 0 only" in found.notes[0] and "nnUNetTrainerCE has no fold 1" in found.notes[0]
    # one whose validation kept no probabilities
    for path in study.validation(NAMES[0], 1).rglob("*.npz"):
        path.unlink()
    with pytest.raises(UserError, match="nnUNetTrainer has no fold 1 .*--predict"):
        gather()
    with pytest.raises(UserError, match="no fold in common: nnUNetTrainer has no fold 7"):
        gather(folds=["7"])


def test_fold_all(study):
    for trainer in NAMES:
        for fold in (0, 1):
            shutil.copytree(
                study.validation(trainer, fold),
                study.validation(trainer, "all"),
                dirs_exist_ok=True,
            )
    assert gather().folds == ("0", "1")
    for trainer in NAMES:
        for fold in (0, 1):
            shutil.rmtree(study.model(trainer) / f"fold_{fold}")
    found = gather(allow_training_cases=True)
    assert found.folds == ("all",) and len(found.cases) == 6
    with pytest.raises(UserError, match="fold_all is trained on all cases.*--allow-training-cases"):
        gather()


def test_a_missing_case_is_listed(study):
    remove_case(study, NAMES[2], 1, "case_12")
    with pytest.raises(
        UserError, match="nnUNetTrainerNACL lacks 1 of 6 cases: case_12.*--allow-missing"
    ) as error:
        gather()
    assert "case_12.nii.gz and .npz are missing" in str(error.value)
    found = gather(allow_missing=True)
    assert "case_12" not in found.cases and len(found.cases) == 5
    assert all(len(records) == 5 for records in found.records.values())
    assert "the 5 of 6 cases that all have" in found.notes[0] and "case_12" in found.notes[0]
    for trainer, left in zip(NAMES, ("case_00", "case_01", "case_02")):
        for case in {"case_00", "case_01", "case_02"} - {left}:
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
    for trainer in (NAMES[0], NAMES[2]):  # those that are there are kept for all
        shutil.rmtree(study.validation(trainer) / "records")
    assert gather(folds=["0"]).settings == EvaluationSettings(n_bins=10)


def test_a_case_in_two_folds_is_refused(study):
    first, second = (study.validation(NAMES[1], fold) for fold in (0, 1))
    (study.root / "nnUNet_preprocessed" / DATASET / "splits_final.json").unlink()
    for ending in ("npz", "nii.gz"):
        shutil.copy(first / f"case_00.{ending}", second)
    with pytest.raises(UserError, match="case case_00 lies in more than one of the folds 0 and 1"):
        gather()


def copy_predictions(study, trainer: str, fold: int, folder):
    """A fold's predictions as a folder of nnUNetv2_predict, without a document."""
    shutil.copytree(study.validation(trainer, fold), folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "records", ignore_errors=True)
    for name in ("dataset.json", "plans.json"):
        shutil.copy(study.model(trainer) / name, folder)
    return folder


def test_folders_beside_a_model(study, tmp_path):
    folder, validation = (
        copy_predictions(study, NAMES[2], 0, tmp_path / "ensemble"),
        study.validation(NAMES[1]),
    )
    found = gather(NAMES[:1], [f"Ens={folder}", validation], folds=["0"])
    assert list(found.records) == [NAMES[0], str(folder), str(validation)]
    expected = read_record(study.validation(NAMES[2]) / "records" / "case_01.npz").structures.Dice[
        "1"
    ]
    assert found.values["Dice:1"][str(folder)].iloc[1] == expected
    assert [
        note
        for note in found.notes
        if note.startswith("Ens: its networks may have been trained on cases")
    ]
    # a fold's validation, so it is known
    assert not [note for note in found.notes if "nnUNetTrainerCE" in note]
    # deleted probabilities are no obstacle once there are records
    for path in folder.glob("*.npz"):
        path.unlink()
    assert gather(NAMES[:1], [f"Ens={folder}"], folds=["0"]).values.equals(
        found.values.drop(columns=str(validation), level=1)
    )


def test_paths_alone_need_no_variable_of_nnunet(study, tmp_path, monkeypatch):
    references = study.root / "nnUNet_preprocessed" / DATASET / "gt_segmentations"
    folders = [copy_predictions(study, name, 0, tmp_path / name[-4:]) for name in NAMES[1:]]
    # as nnUNetv2_ensemble leaves it
    (folders[1] / "plans.json").rename(tmp_path / "plans_elsewhere.json")
    for name in study.environment:
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match="no plans.json there.*-pfile"):
        gather([], folders, None, references=references)
    given = {"references": references, "plans_json": tmp_path / "plans_elsewhere.json"}
    found = gather([], folders, None, **given)
    assert (found.name, found.folds, found.where) == (DATASET, (), f"{DATASET}, 3 cases")
    assert len(found.notes) == 2 and all("no splits_final.json" in note for note in found.notes)


def test_a_map_that_was_fitted_to_the_cases_is_told(study, tmp_path):
    folder, raw = (
        copy_predictions(study, NAMES[1], 0, tmp_path / name) for name in ("calibrated", "raw")
    )
    fitted = map_to_json({"shift": identity(2)}, "shift", {"1": "anterior", "2": "posterior"})
    parts = {"part_0": ["case_00"], "part_1": ["case_77"]}
    cross_fit = {
        part: {"cases": cases, "map": fitted["maps"]["shift"]} for part, cases in parts.items()
    }
    fitted["fitted"] = {"cross_fit": cross_fit}
    write_json(tmp_path / "map.json", fitted)
    applied = {"map": str(tmp_path / "map.json"), "map_sha256": checksum(tmp_path / "map.json")}
    write_json(folder / "calibration_applied.json", applied)
    told = [
        note
        for note in gather([], [folder, raw], None).notes
        if "calibration map was fitted to cases" in note
    ]
    assert len(told) == 1 and "1 of them (case_00) is" in told[0]
    write_json(tmp_path / "map.json", fitted | {"n_cases": 2})  # no longer the map that was applied
    assert not [note for note in gather([], [folder, raw], None).notes if "calibration map" in note]


def test_cases_of_the_training_are_refused_where_it_is_certain(study, tmp_path):
    folder = copy_predictions(study, NAMES[2], 0, tmp_path / "predicted")
    copy_predictions(study, NAMES[2], 1, folder)
    write_json(
        folder / "predict_from_raw_data_args.json", {"list_of_lists_or_source_folder": "imagesTr"}
    )
    paths = [f"Five={folder}"]
    with pytest.raises(
        UserError,
        match="Five: .*6 of them .*in no single fold's validation.*--allow-training-cases",
    ):
        gather(NAMES[:1], paths)
    note = gather(NAMES[:1], paths, allow_training_cases=True).notes[0]
    assert note.startswith(
        "Five: its networks were trained on cases that they are compared on (6 of them (case_00"
    )
    for path in folder.glob("case_1*"):  # what is left fold 0 alone could have predicted
        path.unlink()
    shutil.rmtree(folder / "records")
    [note] = gather(NAMES[:1], paths, folds=["0"]).notes
    assert "may have been trained" in note and "which folds predicted them is not recorded" in note
    splits = study.root / "nnUNet_preprocessed" / DATASET / "splits_final.json"
    write_json(splits, [{"train": ["case_90"], "val": ["case_91"]}] * 2)
    assert not gather([], [*paths, study.validation(NAMES[1])], dataset=None).notes
    write_json(splits, [{"train": ["case_00"], "val": ["case_01", "case_02"]}] * 2)
    with pytest.raises(
        UserError, match="CE: .*1 of them .case_00. is in the training part of fold 0"
    ):
        gather([], [f"CE={study.validation(NAMES[1])}", *paths], dataset=None)
