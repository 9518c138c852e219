"""A challenge's folder in; one of nnU-Net's raw data sets out, with the paper's split, and prepared.json."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

import nnunet_nacl
from nnunet_nacl.cases.image_files import quiet, why_broken
from nnunet_nacl.cases.worker_processes import work_through
from nnunet_nacl.datasets.challenges import Challenge
from nnunet_nacl.datasets.layouts import SourceCase, find_cases
from nnunet_nacl.datasets.patient_split import PatientSplit, proportional_sizes, split_patients
from nnunet_nacl.datasets.prepared_case import CaseTask, prepare_case
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_writable, remove_leftovers, stamp, to_json_text, write_atomically
from nnunet_nacl.json_files import decode, one_line, read_dict, read_json

__all__ = ["FILE_NAME", "Prepared", "prepare"]

FILE_NAME = "prepared.json"
_RECORDS = f"{FILE_NAME}.partial"  # a finished case's record, until prepared.json holds it
_SCHEMA_VERSION = 1
_COMPUTATION = 1  # raise it when other voxels come from the same files
_SCALED = "rescale_to_0_1"  # the name of a channel tells nnU-Net how to normalise it
_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


class _Document(TypedDict):
    plan: dict[str, Any]
    cases: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Prepared:
    """What was written.

    Attributes:
        folder: nnU-Net's raw data set.
        split: The patients.
        cases: Number of cases of each part of the split.
        kept: Share of each finished case's labelled voxels that is left; empty if the preparation cuts nothing.
        notes: Where it differs from the paper.
        problems: What is wrong with the cases that could not be prepared; the data set is unfinished if there are any.
    """

    folder: Path
    split: PatientSplit
    cases: dict[str, int]
    kept: dict[str, float]
    notes: list[str]
    problems: dict[str, str]


def prepare(
    challenge: Challenge,
    folder: str | os.PathLike,
    *,
    output: str | os.PathLike | None = None,
    number: int | None = None,
    native: bool = False,
    seed: int = 0,
    num_processes: int = 1,
    progress: bool = False,
) -> Prepared:
    """Prepare a challenge's data for nnU-Net, as the paper did or as they are.

    Training and validation cases go to imagesTr and labelsTr, those for testing to imagesTs and labelsTs, in which
    nnU-Net trains nothing. splits_final.json lies beside dataset.json, from where nnU-Net's planning takes it. What a
    run that was broken off has finished is kept.

    Args:
        challenge: Which.
        folder: The challenge's folder as distributed, or the one inside it that holds the cases.
        output: Where the data set's folder goes; None for nnUNet_raw.
        number: Of the data set; None for the challenge's.
        native: Leave images as they are.
        seed: Of the split, 0 or more.
        num_processes: Cases at the same time.
        progress: Show a progress bar on stderr.

    Raises:
        UserError: A folder or file is not as expected, or the data set's name is taken.
    """
    if number is not None and not 1 <= number <= 999:
        raise UserError(f"nnU-Net numbers data sets from 1 to 999, got {number}.")
    if seed < 0:
        raise UserError(f"the seed must be 0 or more, got {seed}.")
    found = find_cases(Path(folder), challenge.title, challenge.layouts, challenge.case)
    split = split_patients(sorted({case.patient for case in found}), challenge.sizes, seed)
    parts = {part: list(patients) for part, patients in asdict(split).items()}
    target = _target(output, challenge.dataset_name(native, number))
    splits = _folds(found, split, challenge.leave_one_out)
    plan = {"challenge": challenge.name, "native": native, "seed": seed, "split": parts}
    _check_plan(target, plan)
    _check_name_free(target, splits)
    tasks = [_task(case, challenge, native, target, case.patient in split.test) for case in found]
    check_writable(target / FILE_NAME)
    records = _Records(target, plan)
    todo = [task for task in tasks if not records.is_finished(task)]
    if todo:
        (target / "dataset.json").unlink(missing_ok=True)  # nnU-Net must not take it for complete
        records.begin()
    problems: dict[str, str] = {}
    for task, outcome in work_through(
        prepare_case, todo, _largest, num_processes, challenge.name, len(tasks), progress
    ):
        if isinstance(outcome, str):
            problems[task.source.name] = one_line(outcome)
        else:
            records.remember(task, outcome)
    if not problems:
        write_atomically(target / "splits_final.json", to_json_text(splits))
        records.finish()
        _write_dataset_json(target, challenge, native, sum(map(len, splits[0].values())))
    return Prepared(
        target,
        split,
        {part: sum(case.patient in patients for case in found) for part, patients in parts.items()},
        records.kept() if not native and any(step.cuts for step in challenge.steps) else {},
        _notes(challenge, native, split),
        dict(sorted(problems.items())),
    )


def _target(output: str | os.PathLike | None, name: str) -> Path:
    parent = os.environ.get("nnUNet_raw") if output is None else output
    if not parent:
        raise UserError("nnUNet_raw is not set; set it, or say with -o where the data set is to go.")
    return Path(parent) / name


def _folds(found: Sequence[SourceCase], split: PatientSplit, leave_one_out: bool) -> list[dict[str, list[str]]]:
    """nnU-Net's splits_final.json."""
    patients = {*split.training, *split.validation}
    folds = [{patient} for patient in sorted(patients)] if leave_one_out else [set(split.validation)]
    return [
        {
            "train": [case.name for case in found if case.patient in patients - held_out],
            "val": [case.name for case in found if case.patient in held_out],
        }
        for held_out in folds
    ]


def _check_plan(target: Path, plan: dict[str, Any]) -> None:
    """UserError if the folder holds anything but an earlier run of the same."""
    if not target.exists() or not any(target.iterdir()):
        return
    if not (target / FILE_NAME).is_file():
        raise UserError(f"{target}: exists and is not from this command; give another number with -d.")
    fix = f"remove {target} and run again"
    document = decode(_Document, read_json(target / FILE_NAME, fix=fix), f"{target / FILE_NAME}: damaged", fix=fix)
    for key, value in plan.items():
        before = document["plan"].get(key)
        if before != value:
            what = "other patients" if key == "split" else f"{key} {before!r}, not {value!r}"
            raise UserError(f"{target}: was prepared with {what}; give another number with -d, or remove it.")


def _check_name_free(target: Path, splits: list[dict[str, list[str]]]) -> None:
    """UserError if nnU-Net knows the number by another name, or the name with another split."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        parent = Path(os.environ.get(variable) or os.devnull)
        for path in sorted(parent.glob(f"{target.name[:10]}_*")):
            if path.name != target.name:
                raise UserError(f"{path}: nnU-Net has this number already; give another one with -d.")
        known = parent / target.name / "splits_final.json"
        if variable == "nnUNet_preprocessed" and known.is_file() and read_json(known) != splits:
            raise UserError(f"{known}: holds another split; give another number with -d, or remove it.")


def _task(case: SourceCase, challenge: Challenge, native: bool, target: Path, test: bool) -> CaseTask:
    part = "Ts" if test else "Tr"
    images = [target / f"images{part}" / f"{case.name}_{c:04d}.nii.gz" for c in range(len(challenge.channels))]
    return CaseTask(case, challenge, native, tuple(images), target / f"labels{part}" / f"{case.name}.nii.gz")


class _Records:
    """Which cases are finished: prepared.json of an earlier run, and one file a case of an unfinished one."""

    def __init__(self, target: Path, plan: dict[str, Any]) -> None:
        self._target, self._plan = target, plan
        self._cases: dict[str, Any] = {}
        if (target / FILE_NAME).is_file():
            self._cases = read_dict(target / FILE_NAME)["cases"]
        for path in sorted((target / _RECORDS).glob("*.json")):
            with contextlib.suppress(UserError):  # damaged: do the case again
                self._cases[path.stem] = read_dict(path)

    def begin(self) -> None:
        """Before the first case."""
        self._write()
        (self._target / _RECORDS).mkdir(exist_ok=True)
        for name in _FOLDERS:  # a killed run's leftovers end as nnU-Net's images do
            (self._target / name).mkdir(exist_ok=True)
            remove_leftovers(self._target / name)

    def is_finished(self, task: CaseTask) -> bool:
        """Whether the case was prepared from the same files, and what was written is still there, and whole."""
        try:
            finished = self._cases.get(task.source.name, {}).get("signature") == self._signature(task)
            finished = finished and not any(map(why_broken, (*task.images, task.labels)))
        except OSError:
            finished = False
        if not finished:
            self._cases.pop(task.source.name, None)
        return finished

    def remember(self, task: CaseTask, kept: float) -> None:
        """Save a finished case's record."""
        record = {"patient": task.source.patient, "labelled_voxels_kept": kept, "signature": self._signature(task)}
        self._cases[task.source.name] = record
        write_atomically(self._target / _RECORDS / f"{task.source.name}.json", to_json_text(record))

    def finish(self) -> None:
        """Write prepared.json, which holds all records."""
        self._write()
        shutil.rmtree(self._target / _RECORDS, ignore_errors=True)

    def kept(self) -> dict[str, float]:
        """Share of the labelled voxels that is left, by case."""
        return {name: record["labelled_voxels_kept"] for name, record in sorted(self._cases.items())}

    def _signature(self, task: CaseTask) -> list[Any]:
        read = [stamp(path) for path in (*dict.fromkeys(task.source.images), task.source.labels)]
        return [_COMPUTATION, *read, *(stamp(path)[1:] for path in (*task.images, task.labels))]

    def _write(self) -> None:
        document = {
            "schema_version": _SCHEMA_VERSION,
            "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
            "plan": self._plan,
            "cases": dict(sorted(self._cases.items())),
        }
        write_atomically(self._target / FILE_NAME, to_json_text(document))


def _write_dataset_json(target: Path, challenge: Challenge, native: bool, num_training: int) -> None:
    """Written last: without it nnU-Net does not take the folder for a data set."""
    with quiet():  # nnU-Net prints when its folders are not set
        from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
    modalities = {str(channel): name for channel, name in enumerate(challenge.channels)}
    with tempfile.TemporaryDirectory() as folder:
        generate_dataset_json(
            folder,
            channel_names=dict(modalities) if native else dict.fromkeys(modalities, _SCALED),
            labels=dict(challenge.labels),
            num_training_cases=num_training,
            file_ending=".nii.gz",
            regions_class_order=challenge.regions_class_order,
            dataset_name=target.name,
            reference=challenge.reference,
            description=f"{challenge.title}, {'as distributed' if native else challenge.preparation}",
            license="that of the challenge",
            converted_by=f"nnunet_nacl {nnunet_nacl.__version__}",
            modalities=modalities,
        )
        content = read_json(Path(folder) / "dataset.json")
    write_atomically(target / "dataset.json", to_json_text(content))


def _notes(challenge: Challenge, native: bool, split: PatientSplit) -> list[str]:
    """Where the data set differs from the paper's."""
    patients = len(split.training) + len(split.validation) + len(split.test)
    notes = list(challenge.deviations)
    if native:
        notes.insert(0, "images are as distributed, without the paper's preparation")
    if patients != sum(challenge.sizes):
        sizes = " / ".join(map(str, proportional_sizes(patients, challenge.sizes)))
        paper = " / ".join(map(str, challenge.sizes))
        notes.insert(0, f"{patients} patients instead of {sum(challenge.sizes)}: {sizes} in the proportion of {paper}")
    return notes


def _largest(task: CaseTask) -> Path:
    return task.source.images[0]
