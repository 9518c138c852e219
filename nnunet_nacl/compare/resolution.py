"""Turns what a command line names into documents: the one step that knows nnU-Net's folders, and that evaluates.

A new kind of entry needs its :class:`Predictions`; what follows takes documents only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_nacl.calibrate.map_file import structures_of
from nnunet_nacl.case.document import FILE_NAME, Evaluation, read_document
from nnunet_nacl.case.results import EvaluationSettings
from nnunet_nacl.compare.cross_fitted import calibrated, part_maps
from nnunet_nacl.compare.entries import Entry
from nnunet_nacl.compare.trained_models import check_training_cases, common_folds, find_models
from nnunet_nacl.errors import UserError
from nnunet_nacl.nnunet.locate import validated_fold
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.runs.evaluate import came_from, evaluate_folder


@dataclass(frozen=True)
class Options:
    """How what is compared is found and measured.

    Attributes:
        plans: Name of the plans, of models by name.
        configuration: ``2d``, ``3d_fullres``, ..., of models by name; None where there are none.
        folds: Of models; None takes those that are present for all.
        references: Ground truth of folders given by path; None finds nnU-Net's own.
        dataset_json: dataset.json of such folders; None looks in them and up to two levels above.
        plans_json: plans.json of such folders; found in the same way.
        allow_missing: Compare on what is common to all, with a note, where folds or cases are missing.
        allow_training_cases: Compare, with a note, cases on which a network was trained.
        groups: Which cases are of one patient, as :func:`~nnunet_nacl.calibrate.patient_groups.read_groups` takes it;
            None takes it from the calibration maps of the models.
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
    num_processes: int = 1
    progress: bool = False


@dataclass(frozen=True)
class Predictions:
    """Predictions of one entry that have one document.

    Attributes:
        entry: Whose they are.
        fold: Of a model's validation folder; empty for everything else.
        document: Its calibration.json, whether it is there or not.
        folder: Where they lie; None where the document is all that is known of them.
    """

    entry: Entry
    fold: str
    document: Path
    folder: PredictionFolder | None


@dataclass(frozen=True)
class Selection:
    """What is compared on one data set, before anything is measured.

    Attributes:
        name: Of the data set.
        predictions: Of all entries, in their order.
        folds: Of the models; empty where only paths are compared.
        options: How they were found.
        notes: Sentences for every output.
    """

    name: str
    predictions: Sequence[Predictions]
    folds: Sequence[str]
    options: Options
    notes: list[str] = field(default_factory=list)


def locate(dataset: str | None, entries: Sequence[Entry], options: Options) -> Selection:
    """Find the models' folds and the folders on a data set; nothing is measured.

    Args:
        dataset: Name or number; may be None where no model is compared.
        entries: What is compared.
        options: How.

    Raises:
        UserError: Something is missing, or belongs to another data set.
    """
    models = [entry for entry in entries if entry.is_model]
    name, folders, folds, notes = "", dict[str, Path](), list[str](), list[str]()
    if models:
        name, folders, notes = find_models(dataset or "", models, options.plans, options.configuration or "")
        folds, left_out = common_folds(name, folders, options.folds, options.allow_missing)
        notes += left_out
    predictions = [
        place for entry in entries for place in _predictions_of(entry, name, folders.get(entry.name), folds, options)
    ]
    if not models:
        named = (place.folder.plans.get("dataset_name") for place in predictions if place.folder)
        name = dataset if dataset and not dataset.isdecimal() else next(filter(None, named), dataset or "cases")
    for place in predictions:
        if place.folder and not place.document.is_file():  # errors come before hours of work, notes when all is known
            cases = {files.case for files in place.folder.cases()[0]}
            allow = options.allow_training_cases
            check_training_cases(
                place.entry.label, place.fold, place.folder.folder, cases, allow=allow, plans=options.plans_json
            )
    return Selection(name, predictions, folds, options, notes)


def _predictions_of(
    entry: Entry, dataset: str, model: Path | None, folds: Sequence[str], options: Options
) -> Iterator[Predictions]:
    if model:
        for fold, folder in find_fold_folders(model, folds).items():
            trained_on = folder.plans.get("dataset_name")
            if entry.path is not None and trained_on != dataset:
                raise UserError(
                    f"{model} was trained on {trained_on}, not on {dataset}; compare models of the same data set."
                )
            if entry.calibrated:
                part_maps(folder)  # where there are none, it is said before hours of work
            yield Predictions(entry, fold, folder.folder / FILE_NAME, folder)
    elif (path := entry.path) and path.is_dir():
        found: PredictionFolder | None = None  # where they cannot be measured (again), the document stands for them
        try:
            found = PredictionFolder.open(
                path, options.references, dataset_json=options.dataset_json, plans=options.plans_json
            )
            found.cases()
        except UserError:
            if not (path / FILE_NAME).is_file():
                raise
            found = None
        yield Predictions(entry, validated_fold(path), path / FILE_NAME, found)
    elif path:
        yield Predictions(entry, "", path, None)


def read_documents(selection: Selection) -> list[tuple[Predictions, Evaluation]]:
    """The document of all predictions; what has none yet, or predictions that are newer, is evaluated first.

    What a document knows already is not measured again. All documents have the settings of those that are there
    already, so that a user's choice of masks is kept.

    Raises:
        UserError: A document cannot be read, the predictions cannot be evaluated, or two documents have other settings.
    """
    known = {place.document for place in selection.predictions if place.document.is_file()}
    documents = [read_document(place.document) if place.document in known else None for place in selection.predictions]
    settings = next((document.settings for document in documents if document), EvaluationSettings())
    for place, document in zip(selection.predictions, documents):
        if differing := document and document.settings.differing(settings):
            raise UserError(
                f"{f'fold {place.fold} of ' if place.fold else ''}{place.entry.name} was evaluated with other settings "
                f"({differing}); run `nnunet_nacl evaluate` with the same options for all, or delete its {FILE_NAME}."
            )
    result = []
    for place, document in zip(selection.predictions, documents):
        folder = place.folder
        if folder and (document is None or not _is_current(document, folder)):
            name = ", fold ".join(filter(None, (place.entry.label, place.fold)))
            document = evaluate_folder(
                folder,
                settings=settings,
                chill=False,
                output=place.document,
                num_processes=selection.options.num_processes,
                progress=name if selection.options.progress else False,
            )
        assert document is not None  # what has no predictions has its document
        if folder and place.entry.calibrated:
            document = calibrated(document, folder)
        result.append((place, document))
    return result


def _is_current(document: Evaluation, folder: PredictionFolder) -> bool:
    """Whether the predictions and their ground truth are those that the document was made from."""
    results, labels = {case.case: case for case in document.cases}, folder.labels
    if document.names != structures_of(labels):
        return False
    try:
        cases, problems = folder.cases(known=results)
    except UserError:
        return True  # no predictions are left, only what is known of them
    if problems or {files.case for files in cases} != set(results):
        return False
    try:
        return all(came_from(results[files.case], files, labels, document.settings) for files in cases)
    except OSError:
        return False
