"""A challenge's folder in; one of nnU-Net's raw data sets out, with the paper's split, and prepared.json."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import TypedDict

import nnunet_nacl
from nnunet_nacl.cases.image_files import check_name, quiet, verified, why_broken
from nnunet_nacl.cases.ledger import Ledger, sign
from nnunet_nacl.cases.run import run
from nnunet_nacl.cases.worker_processes import each_case
from nnunet_nacl.datasets.challenges import Challenge
from nnunet_nacl.datasets.layouts import SourceCase, find_cases
from nnunet_nacl.datasets.preparation import Volumes, array_of
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_writable, remove_leftovers, replacing, to_json_text, write_atomically
from nnunet_nacl.json_files import decode, first_line, read_json

if TYPE_CHECKING:
    import SimpleITK as sitk

FILE_NAME = "prepared.json"
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
    parent = os.environ.get("nnUNet_raw") if output is None else output
    if not parent:
        raise UserError("nnUNet_raw is not set; set it, or say with -o where the data set is to go.")
    target = Path(parent) / challenge.dataset_name(native, number)
    splits = _folds(found, split, challenge.leave_one_out)
    plan = {"challenge": challenge.name, "native": native, "seed": seed, "split": parts}
    earlier = _earlier_cases(target, plan)
    _check_name_free(target, splits)
    tasks = []
    for case in found:
        part = "Ts" if case.patient in split.test else "Tr"
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
        write_atomically(target / "splits_final.json", to_json_text(splits))
        entries = {name: ledger.entry(name) for name in records}
        write_atomically(target / FILE_NAME, to_json_text(document | {"plan": plan, "cases": entries}))
        ledger.clear()
        _write_dataset_json(target, challenge, native, sum(map(len, splits[0].values())))
    cuts = not native and any(step.cuts for step in challenge.steps)
    return Prepared(
        target,
        split,
        {part: sum(case.patient in patients for case in found) for part, patients in parts.items()},
        {name: record["labelled_voxels_kept"] for name, record in records.items() if cuts},
        _notes(challenge, native, split),
        problems,
    )


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
        known = parent / target.name / "splits_final.json"
        if variable == "nnUNet_preprocessed" and known.is_file() and read_json(known) != splits:
            raise UserError(f"{known}: holds another split; give another number with -d, or remove it.")


def _sign(task: CaseTask, known: Any) -> dict[str, Any]:
    images = {f"image_{i}": path for i, path in enumerate(dict.fromkeys(task.source.images))}
    return sign(images | {"labels": task.source.labels}, {"computation": _COMPUTATION}, known)


def _restore(task: CaseTask, entry: dict[str, Any]) -> dict[str, Any] | None:
    """The record of an earlier run, if what it wrote is still whole."""
    if any(map(why_broken, task.outputs)):
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


@dataclass(frozen=True)
class PatientSplit:
    """Who belongs where: patients in alphabetic order."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def split_patients(patients: Sequence[str], sizes: tuple[int, int, int], seed: int) -> PatientSplit:
    """A random split, the same for the same patients and seed, in whatever order they are given.

    Args:
        patients: Each once.
        sizes: Number for training, validation and test, where there are as many patients as in the paper; of any
            other number of patients each part gets its share, see :func:`proportional_sizes`.
        seed: Of NumPy's generator.

    Raises:
        UserError: There are fewer than three patients.
    """
    names = sorted(patients)
    order = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    training, validation, _ = proportional_sizes(len(order), sizes)
    parts = order[:training], order[training : training + validation], order[training + validation :]
    return PatientSplit(*(tuple(sorted(part)) for part in parts))


def proportional_sizes(total: int, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    """``total`` in the proportion of ``sizes``, by the largest remainders; no part is empty.

    Raises:
        UserError: ``total`` is below three.
    """
    if total < 3:
        raise UserError(f"a split into training, validation and test needs at least 3 patients, found {total}.")
    shares = [total * size / sum(sizes) for size in sizes]
    parts = [max(1, int(share)) for share in shares]
    while sum(parts) != total:
        step = 1 if sum(parts) < total else -1
        rest = [step * (share - part) if part + step >= 1 else -np.inf for share, part in zip(shares, parts)]
        parts[int(np.argmax(rest))] += step
    return parts[0], parts[1], parts[2]


@dataclass(frozen=True)
class CaseTask:
    """What to do with a case.

    Attributes:
        source: Its files.
        challenge: Whose they are.
        native: Without the paper's preparation.
        images, labels: Where to.
    """

    source: SourceCase
    challenge: Challenge
    native: bool
    images: tuple[Path, ...]
    labels: Path

    @property
    def case(self) -> str:
        """Its name."""
        return self.source.name

    @property
    def path(self) -> Path:
        """Its largest file."""
        return self.source.images[0]

    @property
    def outputs(self) -> tuple[Path, ...]:
        """What is written of it."""
        return *self.images, self.labels


def prepare_case(task: CaseTask) -> dict[str, Any]:
    """Writes a case.

    Returns:
        Its record: the patient, and the share of the labelled voxels that the preparation did not cut off.

    Raises:
        UserError: A file cannot be read, grids differ, or a label should not be there.
    """
    import SimpleITK as sitk

    (task.labels.parents[1] / "dataset.json").unlink(missing_ok=True)  # nnU-Net must not take the data set for complete
    volumes, kept = _read(task.source, task.challenge), 1.0
    for step in () if task.native else task.challenge.steps:
        before = np.count_nonzero(array_of(volumes.labels)) if step.cuts else 0
        volumes = step(volumes)
        if before:
            kept *= int(np.count_nonzero(array_of(volumes.labels))) / int(before)
    for image, path in zip((*volumes.images, volumes.labels), task.outputs):
        with replacing(path, ending=".nii.gz") as temporary, verified(temporary):
            sitk.WriteImage(image, str(temporary))
    return {"patient": task.source.patient, "labelled_voxels_kept": kept}


def _read(source: SourceCase, challenge: Challenge) -> Volumes:
    labels = _read_labels(source.labels, challenge)
    images: list[sitk.Image] = []
    for path in dict.fromkeys(source.images):
        images += _volumes(_load(path), path, challenge)
        if images[-1].GetSize() != labels.GetSize() or not np.allclose(
            images[-1].GetSpacing(), labels.GetSpacing(), rtol=1e-3
        ):
            raise UserError(
                f"{path}: has {_grid(images[-1])}, its segmentation {source.labels.name} {_grid(labels)}; expected the "
                "same grid."
            )
    for image in (*images[1:], labels):  # nnU-Net overlays arrays, whatever their origins and directions
        image.CopyInformation(images[0])
    return Volumes(tuple(images), labels)


def _volumes(image: sitk.Image, path: Path, challenge: Challenge) -> list[sitk.Image]:
    """The 3D images of a file."""
    dimension = 4 if challenge.volumes > 1 else 3
    found = image.GetSize()[3] if image.GetDimension() == 4 else 1
    if image.GetDimension() != dimension or found != challenge.volumes or image.GetNumberOfComponentsPerPixel() > 1:
        wanted = f"{challenge.volumes} volumes ({', '.join(challenge.channels)})" if dimension == 4 else "one volume"
        raise UserError(f"{path}: has size {image.GetSize()}; {challenge.title} has {wanted} there.")
    return [image] if dimension == 3 else [image[:, :, :, volume] for volume in range(found)]


def _read_labels(path: Path, challenge: Challenge) -> sitk.Image:
    """The segmentation in our labels."""
    import SimpleITK as sitk

    image = _load(path)
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() > 1:
        raise UserError(f"{path}: has size {image.GetSize()}; expected a segmentation in 3D.")
    array = array_of(image)
    ours = np.zeros(array.shape, np.uint8)
    for label in np.unique(array).tolist():
        if label not in challenge.values:
            known = ", ".join(map(str, sorted(challenge.values)))
            raise UserError(f"{path}: holds label {label:g}; {challenge.title} has the labels {known}.")
        ours[array == label] = challenge.values[label]
    labels = sitk.GetImageFromArray(ours)
    labels.CopyInformation(image)
    return labels


def _load(path: Path) -> sitk.Image:
    import SimpleITK as sitk

    check_name(path)
    try:
        broken = why_broken(path)
        if not broken:
            return sitk.ReadImage(str(path))
    except OSError as error:
        broken = str(error.strerror)
    except RuntimeError as error:  # SimpleITK's
        broken = first_line(error)
    raise UserError(f"{path}: cannot be read as an image ({broken}); download or unpack it again.")


def _grid(image: sitk.Image) -> str:
    def shown(values: Sequence[float]) -> str:
        return " x ".join(f"{value:g}" for value in values)

    return f"{shown(image.GetSize())} voxels of {shown(image.GetSpacing())} mm"
