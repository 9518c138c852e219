"""A challenge's folder in; one of nnU-Net's raw data sets out, with the paper's split, and
prepared.json."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from nnunet_nacl_paper.datasets.challenges import Challenge
from nnunet_nacl_paper.datasets.layouts import SourceCase, find_cases
from nnunet_nacl_paper.datasets.patient_split import folds_of, proportional_sizes, split_patients
from nnunet_nacl_paper.datasets.prepared_case import CaseTask, prepare_case
from nnunet_nacl_paper.files import TEMPORARY, InputError, read_json, why_broken, write_json

FILE_NAME = "prepared.json"
SPLITS = "splits_final.json"
_SCALED = "rescale_to_0_1"  # the name of a channel tells nnU-Net how to normalise it
_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


class _Record(BaseModel):
    patient: str
    labelled_voxels_kept: float
    sources: list[tuple[str, int, int]]  # path, bytes and time of each file as it was read


class _Document(BaseModel):
    """prepared.json."""

    plan: dict[str, Any]
    cases: dict[str, _Record]


@dataclass(frozen=True)
class Prepared:
    """What was written.

    Attributes:
        folder: nnU-Net's raw data set.
        split: Patients of each part of the split.
        cases: Number of cases of each part of the split.
        kept: Share of each finished case's labelled voxels that is left; empty if the preparation
            cuts nothing.
        notes: Where it differs from the paper.
        problems: What is wrong with the cases that could not be prepared; the data set is
            unfinished if there are any.
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

    Training and validation cases go to imagesTr and labelsTr, those for testing to imagesTs and
    labelsTs, in which nnU-Net trains nothing. splits_final.json lies beside dataset.json, from
    where nnU-Net's planning takes it. What a run that was broken off has finished is kept.

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
        InputError: A folder or file is not as expected, or the data set's name is taken.
    """
    if number is not None and not 1 <= number <= 999:
        raise InputError(f"nnU-Net numbers data sets from 1 to 999, got {number}.")
    if seed < 0:
        raise InputError(f"the seed must be 0 or more, got {seed}.")
    found = find_cases(Path(folder), challenge.title, challenge.layouts, challenge.case)
    split = split_patients(sorted({case.patient for case in found}), challenge.sizes, seed)
    parent = os.environ.get("nnUNet_raw") if output is None else output
    if not parent:
        raise InputError(
            "nnUNet_raw is not set; set it, or say with -o where the data set is to go."
        )
    target = Path(parent) / challenge.dataset_name(native, number)
    splits = folds_of(found, split, challenge.leave_one_out)
    plan = {"challenge": challenge.name, "native": native, "seed": seed, "split": split}
    earlier = _earlier_cases(target, plan)
    _check_name_free(target, splits)
    tasks = []
    for case in found:
        part = "Ts" if case.patient in split["test"] else "Tr"
        images = [
            target / f"images{part}" / f"{case.name}_{c:04d}.nii.gz"
            for c in range(len(challenge.channels))
        ]
        labels = target / f"labels{part}" / f"{case.name}.nii.gz"
        tasks.append(CaseTask(case, challenge, native, tuple(images), labels))
    for name in _FOLDERS:
        try:
            (target / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}; choose another -o.") from None
        # of a killed run, ending as nnU-Net's images do
        for leftover in (target / name).glob(f".*{TEMPORARY}*"):
            leftover.unlink()
    records = {
        task.source.name: earlier[task.source.name] for task in tasks if _is_done(task, earlier)
    }
    todo = [task for task in tasks if task.source.name not in records]
    document, problems = _Document(plan=plan, cases=records), dict[str, str]()
    write_json(target / FILE_NAME, document.model_dump())
    for task, outcome in _each(todo, num_processes, progress):
        if isinstance(outcome, str):
            problems[task.source.name] = outcome
        else:
            records[task.source.name] = _Record(**outcome, sources=_sources(task.source))
            document.cases = dict(sorted(records.items()))
            write_json(target / FILE_NAME, document.model_dump())
    if not problems:
        write_json(target / SPLITS, splits)
        _write_dataset_json(target, challenge, native, sum(map(len, splits[0].values())))
    cuts = not native and any(step.cuts for step in challenge.steps)
    return Prepared(
        target,
        split,
        {part: sum(case.patient in patients for case in found) for part, patients in split.items()},
        {name: record.labelled_voxels_kept for name, record in sorted(records.items()) if cuts},
        _notes(challenge, native, split),
        dict(sorted(problems.items())),
    )


def _each(
    tasks: Sequence[CaseTask], num_processes: int, progress: bool
) -> Iterator[tuple[CaseTask, dict[str, Any] | str]]:
    """Each case as it is done, with its record or with what is wrong with it."""
    from tqdm import tqdm

    with contextlib.ExitStack() as stack:
        if num_processes > 1:
            pool = stack.enter_context(
                ProcessPoolExecutor(num_processes, mp_context=get_context("spawn"))
            )
            stack.callback(pool.shutdown, cancel_futures=True)
            running = {pool.submit(prepare_case, task): task for task in tasks}
            done = ((running[future], future.result) for future in as_completed(running))
        else:
            done = ((task, partial(prepare_case, task)) for task in tasks)
        for task, result in tqdm(done, total=len(tasks), disable=not progress, leave=False):
            try:
                yield task, result()
            except (InputError, MemoryError) as error:
                yield task, str(error) or "there is too little memory; run again with a smaller -np"
            except BrokenProcessPool:
                yield (
                    task,
                    (
                        "a process was killed, perhaps for want of memory; run again with a"
                        " smaller -np"
                    ),
                )


def _sources(case: SourceCase) -> list[tuple[str, int, int]]:
    paths = [*dict.fromkeys(case.images), case.labels]
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def _is_done(task: CaseTask, earlier: Mapping[str, _Record]) -> bool:
    """Whether an earlier run made the case of the same files, and what it wrote is still whole."""
    record = earlier.get(task.source.name)
    if record is None or record.sources != _sources(task.source):
        return False
    return all(path.is_file() and not why_broken(path) for path in task.outputs)


def _earlier_cases(target: Path, plan: dict[str, Any]) -> dict[str, _Record]:
    """What an earlier run of the same has finished; InputError if the folder holds anything
    else."""
    if not target.exists() or not any(target.iterdir()):
        return {}
    path, fix = target / FILE_NAME, f"remove {target} and run again"
    if not path.is_file():
        raise InputError(
            f"{target}: exists and is not from this command; give another number with -d."
        )
    try:
        document = _Document.model_validate(read_json(path, fix))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"{path}: damaged: {where}: {error.errors()[0]['msg']}; {fix}.") from None
    for key, value in plan.items():
        before = document.plan.get(key)
        if before != value:
            difference = "other patients" if key == "split" else f"{key} {before!r}, not {value!r}"
            raise InputError(
                f"{target}: was prepared with {difference}; give another number with -d, or"
                " remove it."
            )
    return document.cases


def _check_name_free(target: Path, splits: list[dict[str, list[str]]]) -> None:
    """InputError if nnU-Net knows the number by another name, or the name with another split."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        parent = Path(os.environ.get(variable) or os.devnull)
        for path in sorted(parent.glob(f"{target.name[:10]}_*")):
            if path.name != target.name:
                raise InputError(
                    f"{path}: nnU-Net has this number already; give another one with -d."
                )
        known = parent / target.name / SPLITS
        if (
            variable == "nnUNet_preprocessed"
            and known.is_file()
            and read_json(known, "remove it") != splits
        ):
            raise InputError(
                f"{known}: holds another split; give another number with -d, or remove it."
            )


def _write_dataset_json(
    target: Path, challenge: Challenge, native: bool, num_training: int
) -> None:
    """Written last: without it nnU-Net does not take the folder for a data set."""
    modalities = {str(channel): name for channel, name in enumerate(challenge.channels)}
    order = challenge.regions_class_order
    content = {
        "channel_names": modalities if native else dict.fromkeys(modalities, _SCALED),
        "labels": dict(challenge.labels),
        **({"regions_class_order": order} if order else {}),
        "numTraining": num_training,
        "file_ending": ".nii.gz",
        "name": target.name,
        "reference": challenge.reference,
        "description": (
            f"{challenge.title}, {'as distributed' if native else challenge.preparation}"
        ),
        "license": "that of the challenge",
        "converted_by": "nnunet_nacl_paper",
        "modalities": modalities,
    }
    write_json(target / "dataset.json", content)


def _notes(challenge: Challenge, native: bool, split: Mapping[str, Sequence[str]]) -> list[str]:
    """Where the data set differs from the paper's."""
    patients = sum(map(len, split.values()))
    notes = list(challenge.deviations)
    if native:
        notes.insert(0, "images are as distributed, without the paper's preparation")
    if patients != sum(challenge.sizes):
        sizes = " / ".join(map(str, proportional_sizes(patients, challenge.sizes)))
        paper = " / ".join(map(str, challenge.sizes))
        notes.insert(
            0,
            f"{patients} patients instead of {sum(challenge.sizes)}: {sizes} in the proportion of"
            f" {paper}",
        )
    return notes
