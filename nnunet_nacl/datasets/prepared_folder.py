"""A challenge's folder in; one of nnU-Net's raw data sets out, with the paper's split, and prepared.json."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

import nnunet_nacl
from nnunet_nacl.cases.image_files import quiet, why_broken
from nnunet_nacl.cases.ledger import Ledger, sign
from nnunet_nacl.cases.locate import SPLITS, read_splits
from nnunet_nacl.cases.run import run
from nnunet_nacl.cases.worker_processes import each_case
from nnunet_nacl.datasets.challenges import Challenge
from nnunet_nacl.datasets.layouts import find_cases
from nnunet_nacl.datasets.patient_split import folds_of, proportional_sizes, split_patients
from nnunet_nacl.datasets.prepared_case import CaseTask, prepare_case
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_writable, remove_leftovers, to_json_text, write_atomically
from nnunet_nacl.json_files import decode, fits, read_json

FILE_NAME = "prepared.json"
_SCHEMA_VERSION = 1
_COMPUTATION = 1  # raise it when other voxels come from the same files
_SCALED = "rescale_to_0_1"  # the name of a channel tells nnU-Net how to normalise it
_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


class _Document(TypedDict):
    plan: dict[str, Any]
    cases: dict[str, dict[str, Any]]


class _Record(TypedDict):
    patient: str
    labelled_voxels_kept: float


@dataclass(frozen=True)
class Prepared:
    """What was written.

    Attributes:
        folder: nnU-Net's raw data set.
        split: Patients of each part of the split.
        cases: Number of cases of each part of the split.
        kept: Share of each finished case's labelled voxels that is left; empty if the preparation cuts nothing.
        notes: Where it differs from the paper.
        problems: What is wrong with the cases that could not be prepared; the data set is unfinished if there are any.
    """

    folder: Path
    split: dict[str, list[str]]
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
    parent = os.environ.get("nnUNet_raw") if output is None else output
    if not parent:
        raise UserError("nnUNet_raw is not set; set it, or say with -o where the data set is to go.")
    target = Path(parent) / challenge.dataset_name(native, number)
    splits = folds_of(found, split, challenge.leave_one_out)
    plan = {"challenge": challenge.name, "native": native, "seed": seed, "split": split}
    earlier = _earlier_cases(target, plan)
    _check_name_free(target, splits)
    tasks = []
    for case in found:
        part = "Ts" if case.patient in split["test"] else "Tr"
        images = [target / f"images{part}" / f"{case.name}_{c:04d}.nii.gz" for c in range(len(challenge.channels))]
        labels = target / f"labels{part}" / f"{case.name}.nii.gz"
        tasks.append(CaseTask(case, challenge, native, tuple(images), labels))
    check_writable(target / FILE_NAME)
    ledger = Ledger(target / f"{FILE_NAME}.partial", earlier.values())
    document = {"schema_version": _SCHEMA_VERSION, "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}"}
    write_atomically(target / FILE_NAME, to_json_text(document | {"plan": plan, "cases": earlier}))
    for name in _FOLDERS:  # a killed run's leftovers end as nnU-Net's images do
        (target / name).mkdir(exist_ok=True)
        remove_leftovers(target / name)
    options: Any = {"title": challenge.name, "progress": progress, "output": target}
    outputs: Any = {"entry_of": dict, "written": lambda task, record: task.outputs}
    prepare = partial(each_case, prepare_case, processes=num_processes)
    records, problems = run(tasks, prepare, ledger, sign=_sign, restore=_restore, **outputs, **options)
    if not problems:
        write_atomically(target / SPLITS, to_json_text(splits))
        entries = {name: ledger.entry(name) for name in records}
        write_atomically(target / FILE_NAME, to_json_text(document | {"plan": plan, "cases": entries}))
        ledger.clear()
        _write_dataset_json(target, challenge, native, sum(map(len, splits[0].values())))
    cuts = not native and any(step.cuts for step in challenge.steps)
    return Prepared(
        target,
        split,
        {part: sum(case.patient in patients for case in found) for part, patients in split.items()},
        {name: record["labelled_voxels_kept"] for name, record in records.items() if cuts},
        _notes(challenge, native, split),
        problems,
    )


def _earlier_cases(target: Path, plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What an earlier run of the same has finished; UserError if the folder holds anything else."""
    if not target.exists() or not any(target.iterdir()):
        return {}
    if not (target / FILE_NAME).is_file():
        raise UserError(f"{target}: exists and is not from this command; give another number with -d.")
    fix = f"remove {target} and run again"
    document = decode(_Document, read_json(target / FILE_NAME, fix=fix), f"{target / FILE_NAME}: damaged", fix=fix)
    for key, value in plan.items():
        before = document["plan"].get(key)
        if before != value:
            what = "other patients" if key == "split" else f"{key} {before!r}, not {value!r}"
            raise UserError(f"{target}: was prepared with {what}; give another number with -d, or remove it.")
    return document["cases"]


def _check_name_free(target: Path, splits: list[dict[str, list[str]]]) -> None:
    """UserError if nnU-Net knows the number by another name, or the name with another split."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        parent = Path(os.environ.get(variable) or os.devnull)
        for path in sorted(parent.glob(f"{target.name[:10]}_*")):
            if path.name != target.name:
                raise UserError(f"{path}: nnU-Net has this number already; give another one with -d.")
        known = parent / target.name / SPLITS
        if variable == "nnUNet_preprocessed" and known.is_file() and read_splits(known) != splits:
            raise UserError(f"{known}: holds another split; give another number with -d, or remove it.")


def _sign(task: CaseTask, known: Any) -> dict[str, Any]:
    images = {f"image_{i}": path for i, path in enumerate(dict.fromkeys(task.source.images))}
    return sign(images | {"labels": task.source.labels}, {"computation": _COMPUTATION}, known)


def _restore(task: CaseTask, entry: dict[str, Any]) -> dict[str, Any] | None:
    """The record of an earlier run, if what it wrote is still whole."""
    if any(map(why_broken, task.outputs)) or not fits(_Record, entry):
        return None
    return {name: entry[name] for name in ("patient", "labelled_voxels_kept")}


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


def _notes(challenge: Challenge, native: bool, split: Mapping[str, Sequence[str]]) -> list[str]:
    """Where the data set differs from the paper's."""
    patients = sum(map(len, split.values()))
    notes = list(challenge.deviations)
    if native:
        notes.insert(0, "images are as distributed, without the paper's preparation")
    if patients != sum(challenge.sizes):
        sizes = " / ".join(map(str, proportional_sizes(patients, challenge.sizes)))
        paper = " / ".join(map(str, challenge.sizes))
        notes.insert(0, f"{patients} patients instead of {sum(challenge.sizes)}: {sizes} in the proportion of {paper}")
    return notes
