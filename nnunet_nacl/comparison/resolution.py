"""Turns what a command line names into documents: the one step that knows nnU-Net's folders, and that evaluates.

A new kind of entry needs a function that gives its :class:`Part` objects; what follows takes documents only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnunet_nacl.cases.evaluate import evaluate_folder, is_current
from nnunet_nacl.cases.folds import FILE_NAME
from nnunet_nacl.cases.locate import find_fold_folders
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.comparison.entries import Entry
from nnunet_nacl.comparison.test_cases import open_test_folder
from nnunet_nacl.comparison.trained_models import common_folds, find_models, other_configurations
from nnunet_nacl.comparison.training_cases import check_training_cases, fold_of
from nnunet_nacl.comparison.treated_folder import treated_document, treated_folder
from nnunet_nacl.documents.document import read_document
from nnunet_nacl.documents.results import Evaluation, EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import can_write
from nnunet_nacl.json_files import read_dict

__all__ = ["Located", "Options", "Part", "locate", "read_documents"]


@dataclass(frozen=True)
class Options:
    """How what is compared is found and measured.

    Attributes:
        plans: Name of the plans, of models by name.
        configuration: ``2d``, ``3d_fullres``, ..., of models by name; None where there are none.
        folds: Of models; None takes those that are present for all.
        references: Ground truth of folders given by path; None finds nnU-Net's own.
        dataset_json: dataset.json of such folders; None looks in them and up to two levels above.
        plans_json: plans.json of such folders; likewise.
        allow_missing: Compare on what is common to all, with a note, where folds or cases are missing.
        allow_training_cases: Compare, with a note, cases on which a network was trained.
        groups: Which cases are of one patient, as :func:`~nnunet_nacl.documents.patient_groups.read_groups` takes it;
            None takes it from the calibration maps of the models.
        test: Of models compare the predictions of the test cases instead of the validations.
        cache: Folder for documents that cannot lie beside the predictions.
        num_processes: Cases measured at the same time.
        progress: Show progress bars.
    """

    plans: str = "nnUNetPlans"
    configuration: str | None = None
    folds: Sequence[str] | None = None
    references: Path | None = None
    dataset_json: Path | None = None
    plans_json: Path | None = None
    allow_missing: bool = False
    allow_training_cases: bool = False
    groups: str | None = None
    test: bool = False
    cache: Path = Path("cache")
    num_processes: int = 1
    progress: bool = False

    def check_training(self, label: str, fold: str, folder: Path, cases: set[str]) -> list[str]:
        """See :func:`~nnunet_nacl.comparison.training_cases.check_training_cases`."""
        return check_training_cases(label, fold, folder, cases, allow=self.allow_training_cases, plans=self.plans_json)


@dataclass(frozen=True)
class Part:
    """Predictions of one entry that have one document.

    Attributes:
        entry: Whose they are.
        fold: Of a model's validation folder; empty for everything else.
        document: Its calibration.json, whether it is there or not.
        folder: The predictions; None where the document is all that is known of them.
    """

    entry: Entry
    fold: str
    document: Path
    folder: PredictionFolder | None


@dataclass(frozen=True)
class Located:
    """What is compared on one data set, before anything is measured.

    Attributes:
        name: Of the data set.
        entries: In order.
        parts: Of all entries.
        folds: Of the models; empty where only paths are compared.
        notes: What must be said beside every number.
        options: How it was found.
    """

    name: str
    entries: Sequence[Entry]
    parts: Sequence[Part]
    folds: Sequence[str]
    options: Options
    notes: list[str] = field(default_factory=list)


def locate(dataset: str | None, entries: Sequence[Entry], options: Options) -> Located:
    """Find the models' folds and the folders on a data set; nothing is measured.

    Args:
        dataset: Name or number; may be None where no model is compared.
        entries: What is compared.
        options: How.

    Raises:
        UserError: Something is missing, or belongs to another data set.
    """
    models = [entry for entry in entries if entry.is_model]
    name: str | None = None
    folds: list[str] = []
    notes: list[str] = []
    parts: dict[str, list[Part]] = {}
    if models:
        configuration = options.configuration or ""
        name, folders = find_models(dataset or "", models, options.plans, configuration)
        if not options.test:
            folds, notes = common_folds(name, folders, options.folds, options.allow_missing)
        notes = other_configurations(models, options.plans, configuration) + notes
        for entry in models:
            model = folders[entry.name]
            parts[entry.name] = (
                [_part_of_test_cases(entry, name, model)]
                if options.test
                else _parts_of_model(entry, name, model, folds)
            )
    for entry in entries:
        if entry.path is not None and not entry.is_model:
            parts[entry.name] = [_part_of_path(entry, entry.path, options)]
    if name is None:
        named = [p.folder.plans.get("dataset_name") for own in parts.values() for p in own if p.folder]
        name = dataset if dataset and not dataset.isdecimal() else next(filter(None, named), dataset or "cases")
    found = [part for entry in entries for part in parts[entry.name]]
    for part in found:
        if part.folder and not part.document.is_file():  # errors come before hours of work, notes when all is known
            cases = {files.case for files in part.folder.cases()[0]}
            options.check_training(part.entry.label, part.fold, part.folder.folder, cases)
    return Located(name, entries, found, folds, options, notes)


def _parts_of_model(entry: Entry, dataset: str, model: Path, folds: Sequence[str]) -> list[Part]:
    found = find_fold_folders(model, folds)
    own = next(iter(found.values())).plans.get("dataset_name")
    if entry.path is not None and own != dataset:
        raise UserError(f"{entry.path} was trained on {own}, not on {dataset}; compare models of the same data set.")
    return [
        Part(entry, fold, treated_document(folder.folder, entry.treatment), treated_folder(folder, entry.treatment))
        for fold, folder in found.items()
    ]


def _part_of_test_cases(entry: Entry, dataset: str, model: Path) -> Part:
    folder = open_test_folder(model, entry.treatment, dataset)
    return Part(entry, "", folder.folder / FILE_NAME, folder)


def _part_of_path(entry: Entry, path: Path, options: Options) -> Part:
    if not path.is_dir():
        return Part(entry, "", path, None)
    document, folder = path / FILE_NAME, None
    try:
        folder = PredictionFolder.open(
            path, options.references, dataset_json=options.dataset_json, plans=options.plans_json
        )
        folder.cases()
    except UserError:
        if not document.is_file():
            raise
        folder = None  # its predictions cannot be measured (again): the document stands for them
    return Part(entry, fold_of(path), document, folder)


def read_documents(located: Located) -> dict[str, list[tuple[Part, Evaluation]]]:
    """The document of every part, by entry; what has none yet, or predictions that are newer, is evaluated first.

    What a document knows already is not measured again. A folder that cannot be written keeps its document in the
    cache. All documents have the settings of those that are there already, so that a user's choice of masks is kept.

    Raises:
        UserError: A document cannot be read, the predictions cannot be evaluated, or two documents have other settings.
    """
    there: dict[int, tuple[Path, Evaluation]] = {}
    for i, part in enumerate(located.parts):
        for place in (_in_cache(part, located), part.document):
            if place.is_file():
                there[i] = place, read_document(place)
                break
    settings = _common_settings(located.parts, {i: document for i, (_, document) in there.items()})
    result: dict[str, list[tuple[Part, Evaluation]]] = {entry.name: [] for entry in located.entries}
    for i, part in enumerate(located.parts):
        path, document = there.get(i, (None, None))
        if document is None or not (part.folder is None or _is_current(document, part.folder)):
            document = _evaluate(part, path, document.settings if document else settings, located)
        result[part.entry.name].append((part, document))
    return result


def _common_settings(parts: Sequence[Part], documents: Mapping[int, Evaluation]) -> EvaluationSettings:
    default = replace(next((d.settings for d in documents.values()), EvaluationSettings()), paper=False)
    for i, document in documents.items():
        own, other = vars(replace(document.settings, paper=False)), vars(default)
        if own != other:
            part = parts[i]
            differing = ", ".join(f"{key} {own[key]}, not {other[key]}" for key in own if own[key] != other[key])
            raise UserError(
                f"{f'fold {part.fold} of ' if part.fold else ''}{part.entry.name} was evaluated with other settings "
                f"({differing}); run `nnunet_nacl evaluate` with the same options for all, or delete its {FILE_NAME}."
            )
    return default


def _is_current(document: Evaluation, folder: PredictionFolder) -> bool:
    """Whether the predictions and their ground truth are those that the document was made from."""
    known, labels = {case.case: case for case in document.cases}, folder.labels
    if document.names != {labels.key(channel): labels.names[channel] for channel in labels.foreground}:
        return False
    try:
        found, problems = folder.cases(known=known)
    except UserError:
        return True  # no predictions are left, only what is known of them
    if problems or {files.case for files in found} != set(known):
        return False
    try:
        return all(is_current(known[files.case], files, labels, document.settings) for files in found)
    except OSError:
        return False


def _evaluate(part: Part, path: Path | None, settings: EvaluationSettings, located: Located) -> Evaluation:
    if path is not None:
        unknown = sorted(set(read_dict(path)["settings"]) - set(vars(settings)))
        if unknown:
            raise UserError(
                f"{path} was written by a later version of this package, with the settings {', '.join(unknown)}, and "
                "the predictions have changed since; update nnunet_nacl, or evaluate them again with this one."
            )
    output, options = part.document, located.options
    beside = output.parent
    if not can_write(beside if beside.is_dir() else beside.parent):
        output = _in_cache(part, located)
        if path is not None and not output.is_file():
            output.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, output)
    assert part.folder is not None  # a part without predictions has its document
    title = part.entry.label + (f", fold {part.fold}" if part.fold else "")
    return evaluate_folder(
        part.folder,
        settings=settings,
        chill=False,
        output=output,
        num_processes=options.num_processes,
        progress=title if options.progress else False,
    )


def _in_cache(part: Part, located: Located) -> Path:
    place = os.path.realpath(part.document.parent)
    own = f"{Path(place).parts[-3] if part.fold else Path(place).name}-{hashlib.sha1(place.encode()).hexdigest()[:8]}"
    return located.options.cache / located.name / own / FILE_NAME
