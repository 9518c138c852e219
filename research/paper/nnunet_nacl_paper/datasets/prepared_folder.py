"""From a challenge's folder to one of nnU-Net's raw data sets, with the paper's split."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

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
_TOO_LITTLE_MEMORY = "there is too little memory; run again with a smaller -np"
_PROCESS_KILLED = "a process was killed, perhaps for want of memory; run again with a smaller -np"


class _Record(BaseModel):
    """A case that is finished.

    Attributes:
        patient: Whose it is.
        labelled_voxels_kept: Share of the labelled voxels that the preparation left.
        sources: Path, bytes and time (ns) of each file as it was read.
    """

    patient: str
    labelled_voxels_kept: float
    sources: list[tuple[str, int, int]]


class _Plan(BaseModel):
    """What decides what a data set holds."""

    challenge: str
    native: bool
    seed: int
    split: dict[str, list[str]]


class _Document(BaseModel):
    """prepared.json."""

    plan: _Plan
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
    cases = find_cases(Path(folder), challenge.title, challenge.layouts, challenge.case)
    split = split_patients(sorted({case.patient for case in cases}), challenge.sizes, seed)
    target = _parent_folder(output) / challenge.dataset_name(native, number)
    splits = folds_of(cases, split, challenge.leave_one_out)
    plan = _Plan(challenge=challenge.name, native=native, seed=seed, split=split)
    earlier = _earlier_cases(target, plan)
    _check_name_free(target, splits)

    tasks = [_task_of(case, challenge, native, target, split["test"]) for case in cases]
    _make_folders(target)
    document = _Document(plan=plan, cases=_finished_cases(tasks, earlier))
    problems = _prepare_missing(tasks, document, target / FILE_NAME, num_processes, progress)
    if not problems:
        num_training = len(splits[0]["train"]) + len(splits[0]["val"])
        write_json(target / SPLITS, splits)
        _write_dataset_json(target, challenge, native, num_training)
    return Prepared(
        folder=target,
        split=split,
        cases=_count_cases(cases, split),
        kept={} if native else _kept_voxels(challenge, document.cases),
        notes=_notes(challenge, native, split),
        problems=dict(sorted(problems.items())),
    )


def _parent_folder(output: str | os.PathLike | None) -> Path:
    """Where the data set's folder goes."""
    parent = os.environ.get("nnUNet_raw") if output is None else output
    if not parent:
        raise InputError(
            "nnUNet_raw is not set; set it, or say with -o where the data set is to go."
        )
    return Path(parent)


def _task_of(
    case: SourceCase, challenge: Challenge, native: bool, target: Path, test: Sequence[str]
) -> CaseTask:
    """What is to be written of a case, and where."""
    part = "Ts" if case.patient in test else "Tr"
    channels = range(len(challenge.channels))
    names = [f"{case.name}_{channel:04d}.nii.gz" for channel in channels]
    images = tuple(target / f"images{part}" / name for name in names)
    labels = target / f"labels{part}" / f"{case.name}.nii.gz"
    return CaseTask(case, challenge, native, images, labels)


def _make_folders(target: Path) -> None:
    """Make the folders of the data set, and remove what a killed run left there unfinished."""
    for name in _FOLDERS:
        try:
            (target / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}; choose another -o.") from None
        # it ends as nnU-Net's images do
        for leftover in (target / name).glob(f".*{TEMPORARY}*"):
            leftover.unlink()


def _prepare_missing(
    tasks: Sequence[CaseTask],
    document: _Document,
    path: Path,
    num_processes: int,
    progress: bool,
) -> dict[str, str]:
    """Prepare the cases that the document lacks, and write it anew with each that is finished.

    Returns:
        What is wrong with the cases that could not be prepared.
    """
    todo = [task for task in tasks if task.source.name not in document.cases]
    problems = {}
    write_json(path, document.model_dump())
    for result in _each_result(todo, num_processes, progress):
        source = result.task.source
        if result.problem:
            problems[source.name] = result.problem
            continue
        record = _Record(
            patient=source.patient,
            labelled_voxels_kept=result.labelled_voxels_kept,
            sources=_sources(source),
        )
        document.cases = dict(sorted((document.cases | {source.name: record}).items()))
        write_json(path, document.model_dump())
    return problems


@dataclass(frozen=True)
class _Result:
    """What became of a case: the share of its labelled voxels that is left, or what is wrong."""

    task: CaseTask
    labelled_voxels_kept: float = math.nan
    problem: str = ""


def _each_result(
    tasks: Sequence[CaseTask], num_processes: int, progress: bool
) -> Iterator[_Result]:
    """Each case as it is done."""
    from tqdm import tqdm

    with contextlib.ExitStack() as stack:
        finished: Iterator[tuple[CaseTask, Callable[[], float]]]
        if num_processes > 1:
            pool = stack.enter_context(
                ProcessPoolExecutor(num_processes, mp_context=get_context("spawn"))
            )
            stack.callback(pool.shutdown, cancel_futures=True)
            running = {pool.submit(prepare_case, task): task for task in tasks}
            finished = ((running[future], future.result) for future in as_completed(running))
        else:
            finished = ((task, partial(prepare_case, task)) for task in tasks)
        for task, result in tqdm(finished, total=len(tasks), disable=not progress, leave=False):
            try:
                yield _Result(task, result())
            except InputError as error:
                yield _Result(task, problem=str(error))
            except MemoryError as error:
                yield _Result(task, problem=str(error) or _TOO_LITTLE_MEMORY)
            except BrokenProcessPool:
                yield _Result(task, problem=_PROCESS_KILLED)


def _sources(case: SourceCase) -> list[tuple[str, int, int]]:
    """Path, bytes and time (ns) of each of a case's files."""
    sources = []
    for path in [*dict.fromkeys(case.images), case.labels]:
        status = path.stat()
        sources.append((str(path), status.st_size, status.st_mtime_ns))
    return sources


def _finished_cases(
    tasks: Sequence[CaseTask], earlier: Mapping[str, _Record]
) -> dict[str, _Record]:
    """The records of an earlier run that still hold."""
    finished = [task.source.name for task in tasks if _is_done(task, earlier)]
    return {name: earlier[name] for name in finished}


def _is_done(task: CaseTask, earlier: Mapping[str, _Record]) -> bool:
    """Whether an earlier run made the case of the same files, and what it wrote is still whole."""
    record = earlier.get(task.source.name)
    if record is None or record.sources != _sources(task.source):
        return False
    return all(path.is_file() and not why_broken(path) for path in task.outputs)


def _count_cases(cases: Sequence[SourceCase], split: Mapping[str, list[str]]) -> dict[str, int]:
    """Number of cases of each part of the split."""
    counts = {}
    for part, patients in split.items():
        counts[part] = sum(case.patient in patients for case in cases)
    return counts


def _kept_voxels(challenge: Challenge, records: Mapping[str, _Record]) -> dict[str, float]:
    """Share of each case's labelled voxels that is left; empty if no step cuts any off."""
    if not any(step.cuts for step in challenge.steps):
        return {}
    return {name: record.labelled_voxels_kept for name, record in sorted(records.items())}


def _earlier_cases(target: Path, plan: _Plan) -> dict[str, _Record]:
    """Records of what an earlier run of the same plan has finished.

    Raises:
        InputError: The folder holds anything else.
    """
    if not target.exists() or not any(target.iterdir()):
        return {}
    path = target / FILE_NAME
    fix = f"remove {target} and run again"
    if not path.is_file():
        raise InputError(
            f"{target}: exists and is not from this command; give another number with -d."
        )
    try:
        document = _Document.model_validate(read_json(path, fix))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"{path}: damaged: {where}: {error.errors()[0]['msg']}; {fix}.") from None
    difference = _difference(document.plan, plan)
    if difference:
        raise InputError(
            f"{target}: was prepared with {difference}; give another number with -d, or remove it."
        )
    return document.cases


def _difference(before: _Plan, now: _Plan) -> str:
    """What an earlier plan had that this one has not; empty if they are the same."""
    for name in ("challenge", "native", "seed"):
        old = getattr(before, name)
        new = getattr(now, name)
        if old != new:
            return f"{name} {old!r}, not {new!r}"
    return "" if before.split == now.split else "other patients"


def _check_name_free(target: Path, splits: list[dict[str, list[str]]]) -> None:
    """InputError if nnU-Net knows the number by another name, or the name with another split."""
    numbered = target.name.partition("_")[0]
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        parent = Path(os.environ.get(variable) or os.devnull)
        for path in sorted(parent.glob(f"{numbered}_*")):
            if path.name != target.name:
                raise InputError(
                    f"{path}: nnU-Net has this number already; give another one with -d."
                )
    known = Path(os.environ.get("nnUNet_preprocessed") or os.devnull) / target.name / SPLITS
    if known.is_file() and read_json(known, "remove it") != splits:
        raise InputError(
            f"{known}: holds another split; give another number with -d, or remove it."
        )


def _write_dataset_json(
    target: Path, challenge: Challenge, native: bool, num_training: int
) -> None:
    """Written last: without it nnU-Net does not take the folder for a data set."""
    modalities = {str(channel): name for channel, name in enumerate(challenge.channels)}
    preparation = "as distributed" if native else challenge.preparation
    content: dict[str, object] = {
        "channel_names": modalities if native else dict.fromkeys(modalities, _SCALED),
        "labels": dict(challenge.labels),
    }
    if challenge.regions_class_order:
        content["regions_class_order"] = challenge.regions_class_order
    content |= {
        "numTraining": num_training,
        "file_ending": ".nii.gz",
        "name": target.name,
        "reference": challenge.reference,
        "description": f"{challenge.title}, {preparation}",
        "license": "that of the challenge",
        "converted_by": "nnunet_nacl_paper",
        "modalities": modalities,
    }
    write_json(target / "dataset.json", content)


def _notes(challenge: Challenge, native: bool, split: Mapping[str, Sequence[str]]) -> list[str]:
    """Where the data set differs from the paper's."""
    notes = []
    num_patients = sum(map(len, split.values()))
    num_in_paper = sum(challenge.sizes)
    if num_patients != num_in_paper:
        sizes = " / ".join(map(str, proportional_sizes(num_patients, challenge.sizes)))
        paper = " / ".join(map(str, challenge.sizes))
        notes.append(
            f"{num_patients} patients instead of {num_in_paper}: {sizes} in the proportion of"
            f" {paper}"
        )
    if native:
        notes.append("images are as distributed, without the paper's preparation")
    return [*notes, *challenge.deviations]
