"""Labelled images of one's own, predicted as a model is used, and measured on the way: what calibration learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_nacl.documents.document import FILE_NAME
from nnunet_nacl.errors import UserError, list_problems
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.prediction.input_cases import InputCase, find_input_cases
from nnunet_nacl.prediction.network import Network
from nnunet_nacl.prediction.preprocessed_case import GridCase, read_and_preprocess
from nnunet_nacl.prediction.trained_model import TrainedModel
from nnunet_nacl.prediction.validation_prediction import is_finished
from nnunet_nacl.review.prediction_output import open_output
from nnunet_nacl.runs.evaluate import open_ledger
from nnunet_nacl.runs.ledger import Ledger, sign
from nnunet_nacl.runs.measured_export import MeasuredExport
from nnunet_nacl.runs.run import run
from nnunet_nacl.runs.worker_processes import guarded

_RECORD = "predicted_by.json"
_IMAGES = "images"  # folder of what tells an image by its content


def predict_labelled(
    model: TrainedModel,
    network: dict[str, Any],
    images: Path,
    references: Path,
    output: Path,
) -> PredictionFolder:
    """Predict images by all folds of a model, and measure them against their ground truth; no probabilities are saved.

    What an earlier run finished is kept, if networks and settings, and by their content the images, are the same. A bar
    on stderr shows the time left.

    Args:
        model: The model.
        network: Arguments of :class:`~nnunet_nacl.prediction.network.Network` beside the model.
        images: Folder of images, CASE_0000 and so on.
        references: Folder of their label maps.
        output: Folder for segmentations, samples and what was measured.

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
    if (output / _RECORD).is_file() and read_dict(output / _RECORD) != content:
        raise UserError(f"{output} was predicted by other networks or settings; remove it, or choose another -o.")
    with open_output(output, [images, references], model.opened, (_RECORD, content), (FILE_NAME, _IMAGES)):
        folder, known = PredictionFolder.open(output, references), Ledger(output / _IMAGES)
        export, ledger = MeasuredExport(folder), open_ledger(output / FILE_NAME)
        for name, problem in problems.items():
            export.tell(name, problem)

        def work(todo: Sequence[InputCase]) -> Iterator[tuple[InputCase, str | tuple]]:
            networks = Network(model, **network)
            for case in todo:
                problem = guarded(case.path, partial(_predict, model, networks, export, case))
                export.tell(case.case, problem)
                yield case, problem or ()

        def kept(case: InputCase, entry: dict[str, Any]) -> tuple | None:
            return () if is_finished(folder, ledger, case.case, export.settings) else None

        _, unread = run(
            labelled,
            work,
            known,
            sign=lambda case, earlier: sign({path.name: path for path in case.images}, {}, earlier),
            restore=kept,
            entry_of=lambda done: {},
            title="predict",
            progress=True,
        )
        for name, problem in unread.items():
            export.tell(name, problem)
    return folder


def _predict(model: TrainedModel, network: Network, export: MeasuredExport, case: InputCase) -> str:
    """What is wrong with the measurement; empty where nothing is."""
    answered = network.predict(read_and_preprocess(model, case))
    managers = model.configuration_manager, model.plans_manager, model.opened.dataset_json
    export = replace(export, members_dice=_members_dice(model, answered))
    return export.export(answered.values, answered.properties, *managers, str(export.folder.folder / case.case))


def _members_dice(model: TrainedModel, answered: GridCase) -> dict[str, float]:
    """How far the folds agree on each structure, by nnU-Net's key; nothing of a single one."""
    if answered.disagreement is None:
        return {}
    keys = [model.labels.key(channel) for channel in model.labels.foreground]
    return dict(zip(keys, map(float, answered.disagreement.dice)))
