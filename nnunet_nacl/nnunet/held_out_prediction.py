"""Predicts cases that have a truth and measures them on the way, without their probabilities: for calibration.

Labelled images of one's own are predicted by all folds of a model, as it is used; the validation cases of a fold by
this fold alone, see :mod:`nnunet_nacl.nnunet.validation_folders`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_nacl.case.document import FILE_NAME
from nnunet_nacl.case.measure import sign
from nnunet_nacl.errors import UserError, list_problems
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.nnunet.input_cases import InputCase, find_input_cases
from nnunet_nacl.nnunet.measured_export import MeasuredExport
from nnunet_nacl.nnunet.network import Network
from nnunet_nacl.nnunet.pipeline import pipeline
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.preprocessed_case import GridCase, read_and_preprocess
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.review.prediction_output import open_output
from nnunet_nacl.runs.evaluate import open_ledger, restore
from nnunet_nacl.runs.ledger import SIGNATURE, Ledger
from nnunet_nacl.runs.ledger import sign as sign_files
from nnunet_nacl.runs.sample_files import find_sample
from nnunet_nacl.runs.side_by_side import Task

PREDICTED_BY = "predicted_by.json"
"""What made the predictions of a folder of such cases: networks and settings."""

_IMAGES = "images"  # folder of what tells an image by its content

Predicted = tuple[Any, dict[str, Any], dict[str, float]]
"""Logits, nnU-Net's properties, and by nnU-Net's key of a structure how far the folds agree on it."""


def predict_labelled(
    model: TrainedModel,
    network: Mapping[str, Any],
    images: Path,
    references: Path,
    output: Path,
    *,
    num_processes: int = 1,
) -> PredictionFolder:
    """Predict images by all folds of a model, and measure them against their ground truth.

    What an earlier run finished is kept, if networks and settings, and by their content the images, are the same. A bar
    on stderr shows the time left.

    Args:
        model: The model.
        network: Arguments of :class:`~nnunet_nacl.nnunet.network.Network` beside the model.
        images: Folder of images, CASE_0000 and so on.
        references: Folder of their label maps.
        output: Folder for segmentations, samples and what was measured.
        num_processes: Cases exported and measured at the same time, while the next is predicted; 1 starts no process.

    Returns:
        ``output`` as a folder of predictions, whose ledger names the cases that could not be done.

    Raises:
        UserError: The model is a cascade, a folder cannot be used, or no image has a label map.
    """
    if model.previous_stage:
        raise UserError(
            f"{model.folder.name} is a cascade, which needs segmentations of {model.previous_stage} beside images: "
            "predict them with nnUNetv2_predict ... --save_probabilities, and give that folder without a model."
        )
    ending = model.opened.file_ending
    cases, problems = find_input_cases(images, model.opened)
    labelled = [case for case in cases if (references / f"{case.case}{ending}").is_file()]
    if not labelled:
        none = f"{references}: holds the label map (CASE{ending}) of none of the {len(cases)} images."
        raise UserError(none + list_problems(problems))
    settings = {"checkpoints": dict(zip(model.folds, model.hashes)), **network, "device": None}
    content = {"generated_by": "nnunet_nacl calibrate", **settings}
    if (output / PREDICTED_BY).is_file() and read_dict(output / PREDICTED_BY) != content:
        raise UserError(f"{output} was predicted by other networks or settings; remove it, or choose another -o.")
    with open_output(output, [images, references], model.opened, (PREDICTED_BY, content), (FILE_NAME, _IMAGES)):
        folder, known = PredictionFolder.open(output, references), Ledger(output / _IMAGES)
        export = MeasuredExport(folder)
        for name, problem in problems.items():
            export.tell(name, problem)
        for case in labelled:
            with contextlib.suppress(OSError):  # whoever reads the image says what is wrong with it
                now = sign_files({path.name: path for path in case.images}, {}, known.entry(case.case).get(SIGNATURE))
                if not known.finished(case.case, now):  # what was made of another image is none of this one
                    (output / f"{case.case}{ending}").unlink(missing_ok=True)
                    known.remember(case.case, {SIGNATURE: now})
        if todo := unfinished(export, labelled):
            networks, keys = Network(model, **network), [model.labels.key(i) for i in model.labels.foreground]

            def predict(case: InputCase, prepared: GridCase) -> Predicted:
                answered = networks.predict(prepared)
                agreement = [] if answered.disagreement is None else map(float, answered.disagreement.dice)
                return answered.values, answered.properties, dict(zip(keys, agreement))

            managers = model.configuration_manager, model.plans_manager, model.opened.dataset_json
            read, total = partial(read_and_preprocess, model), len(labelled)
            measure_predicted(export, todo, read, predict, managers, num_processes, title="predict", total=total)
    return folder


def measure_predicted(
    export: MeasuredExport,
    todo: Sequence[Any],
    read: Callable[[Any], Any],
    predict: Callable[[Any, Any], Predicted],
    managers: tuple[Any, Any, Any],
    num_processes: int,
    *,
    title: str,
    total: int,
    save_probabilities: bool = False,
) -> None:
    """Predict cases here, and export and measure each while the next is predicted; what goes wrong is told.

    Args:
        export: Of one case.
        todo: The cases.
        read: What the network is given of one.
        predict: What it says of a case and of that.
        managers: What nnU-Net exports it by: of configuration and plans, and dataset.json.
        num_processes: Cases exported at the same time; 1 starts no process.
        title: Of the bar.
        total: Of the cases, finished ones included.
        save_probabilities: Leave them too, as nnU-Net does.
    """
    from tqdm import tqdm

    work, exporters = partial(_export, export, managers, save_probabilities), num_processes if num_processes > 1 else 0
    exported = pipeline(todo, read, predict, work, readers=0, exporters=exporters)
    for case, problem in tqdm(exported, title, total, initial=total - len(todo), unit="case"):
        if problem:
            export.tell(case.case, problem)


def _export(
    export: MeasuredExport, managers: tuple[Any, Any, Any], save: bool, case: Task, predicted: Predicted
) -> None:
    logits, properties, agreement = predicted
    target = export.folder.folder / case.case
    if problem := replace(export, members_dice=agreement).export(logits, properties, *managers, str(target), save):
        raise UserError(problem)


def unfinished(export: MeasuredExport, cases: Iterable[Task]) -> list[Any]:
    """Those not measured yet: of finished ones result and sample are of what is there, to the last byte."""
    folder, settings, ledger = export.folder, export.settings, open_ledger(export.folder.folder / FILE_NAME)

    def is_finished(case: str) -> bool:
        labels, files = folder.labels, folder.files(case)
        try:
            entry = ledger.finished(case, sign(labels, settings, files, ledger.entry(case).get(SIGNATURE)))
            known = entry and restore(labels, settings, files, dict(entry))
            return known is not None and find_sample(files, labels, settings) is not None
        except (UserError, OSError):
            return False

    return [case for case in cases if not is_finished(case.case)]
