"""Exports a trained model as nnU-Net's zip, with its calibration and a card."""

from __future__ import annotations

import contextlib
import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from nnunet_nacl.comparison.cross_fitted import calibrated
from nnunet_nacl.documents.calibration_map import CalibrationMap
from nnunet_nacl.documents.document import Evaluation, read_document
from nnunet_nacl.documents.map_file import MAP_FILE, map_to_json, read_map, read_record, sha256, structures_of
from nnunet_nacl.errors import UserError, describe
from nnunet_nacl.files import check_writable, replacing
from nnunet_nacl.io.checkpoint_files import read_checkpoint
from nnunet_nacl.io.checkpoints import CALIBRATED, write_calibrated
from nnunet_nacl.io.image_files import quiet
from nnunet_nacl.io.locate import find_fold_folders, trained_folds
from nnunet_nacl.json_files import first_line
from nnunet_nacl.methods import PREFIX
from nnunet_nacl.models.card import CARD_NAME, DIAGRAM_NAME, card_text
from nnunet_nacl.prediction.trained_model import FINAL, TrainedModel
from nnunet_nacl.runs.folds import FILE_NAME, merge

_STOCK_EXPORT_NEEDS = ("progress.png", "validation/summary.json")


def export_model(
    model: Path,
    output: Path,
    *,
    folds: Sequence[str] | None = None,
    portable: bool = False,
    form: str = "temperature",
    log: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write nnU-Net's zip of a model with its original checkpoints, the calibration map, and the model card.

    Args:
        model: Model folder, ``nnUNet_results/DatasetNNN_Name/TRAINER__PLANS__CONFIGURATION``.
        output: The zip; an earlier export is replaced.
        folds: Which; None takes all that are trained to the end.
        portable: For sites without this package: nnU-Net's own trainer is recorded in the checkpoints, and the affine
            map of ``form``, where the model has maps, is written into them. nnU-Net alone then predicts calibrated
            probabilities. The folder keeps its name, since under that of the stock trainer it would overwrite the
            site's own model.
        form: ``temperature``, which changes no label of a single network, or ``shift``.
        log: Takes one line of text for each step.

    Returns:
        ``output``.

    Raises:
        UserError: A fold is not trained to the end, the trainer changes the network (``portable``), the map is of other
            networks, or the zip cannot be written. Nothing is left half-written.
    """
    output = Path(output)
    if output.suffix != ".zip":
        raise UserError(f"-o {output}: give the name of a file that ends with .zip.")
    if model.name.count("__") != 2:
        raise UserError(f"{model}: not a model folder of nnU-Net; its name is like TRAINER__PLANS__CONFIGURATION.")
    folds = trained_folds(model, FINAL, folds)
    for path in (model / f"fold_{fold}" / name for fold in folds for name in _STOCK_EXPORT_NEEDS):
        if not path.is_file():
            raise UserError(
                f"{path} is missing; finish this fold (`nnUNetv2_train ... --c`, or `--val` where the validation alone "
                "is missing), or name others with -f."
            )
    map_file = model / MAP_FILE if (model / MAP_FILE).is_file() else None
    opened = TrainedModel.open(model, folds=folds, calibration_map=map_file)
    structures, calibration = structures_of(opened.labels), opened.treatment.map
    if portable:
        check_portable(opened.trainer)
        calibration = read_map(map_file, structures, opened.labels.regions, form) if map_file else None
    check_writable(output)
    if output.exists() and not _is_export(output):
        raise UserError(f"{output} is no archive of `nnunet_nacl export` and would be lost; choose another -o.")
    log(f"nnU-Net's export of {model.name}, folds {', '.join(folds)}")
    with replacing(output) as temporary, tempfile.TemporaryDirectory() as work:
        _stock_export(model, temporary, folds, () if portable else (FINAL,))
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive:
            place, source, baked = PurePosixPath(model.parent.name, model.name), (model, FINAL), None
            if map_file and portable and calibration is not None:
                source, baked = (Path(work), CALIBRATED), form
                mark = map_to_json({form: calibration}, form, structures)
                write_calibrated(model, folds, FINAL, calibration, mark, output=Path(work))
                log(_cost(read_record(map_file), form))
            for fold in folds if portable else ():
                log(f"fold {fold}: {source[1]}, with nnU-Net's own trainer recorded")
                content = _portable_checkpoint(source[0] / f"fold_{fold}" / source[1])
                archive.writestr(str(place / f"fold_{fold}" / FINAL), content)
            if map_file:  # as it is: outputs name its hash
                archive.write(map_file, str(place / MAP_FILE))
            evaluations = _add_evaluations(archive, model, folds, place)
            if evaluations:
                archive.write(_diagram(evaluations, Path(work)), str(place / DIAGRAM_NAME))
            text = card_text(
                opened,
                evaluations=evaluations,
                calibration=calibration,
                hashes=_hashes(archive, place),
                form=baked,
                portable=portable,
            )
            archive.writestr(str(place / CARD_NAME), text.encode("utf-8", "surrogateescape"))
    return output


def check_portable(trainer: str) -> None:
    """UserError where nnU-Net's own trainer would build another network than the class of this name does.

    That is all that nnU-Net's predictor asks of a trainer; the rest of it matters in training only.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        with quiet():
            found = recursive_find_trainer_class_by_name(trainer)
    except Exception as error:
        raise UserError(
            f"the trainer {trainer} cannot be found ({first_line(error)}); install the package that has it."
        ) from None
    own = found.build_network_architecture
    if getattr(own, "__func__", own) is not nnUNetTrainer.build_network_architecture:
        raise UserError(
            f"{trainer} builds its own network, which {PREFIX} would not build; leave out --portable and "
            "install the package that has this trainer where the model is used."
        )


def _portable_checkpoint(path: Path) -> bytes:
    """The checkpoint with nnU-Net's own trainer recorded in place of its own; all else is as it was."""
    import torch

    checkpoint = read_checkpoint(path)
    checkpoint["trainer_name"] = PREFIX
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    return stream.getvalue()


def _cost(record: CalibrationMap, form: str) -> str:
    """What a map in the checkpoints changes in the labels, as `nnunet_nacl calibrate` measured it."""
    found = record.relabelled.get(form)
    if not found or not found.n_structure:
        return f"{form}: what it changes in the labels was not measured"
    share = found.n_changed / found.n_structure
    return (
        f"{form}: on the held-out cases it changes {share:.1%} of the structures' voxels, and Dice by {found.dice:+.4f}"
    )


def _is_export(path: Path) -> bool:
    """Whether a file is one of our archives: none of nnU-Net's own has a model card."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(PurePosixPath(name).name == CARD_NAME for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _stock_export(model: Path, output: Path, folds: Sequence[str], checkpoints: Sequence[str]) -> None:
    from nnunetv2.model_sharing.model_export import export_pretrained_model

    trainer, plans, configuration = model.name.split("__")
    dataset = model.parent.name
    try:
        with quiet():
            export_pretrained_model(
                dataset, str(output), (configuration,), trainer, plans, tuple(folds), True, tuple(checkpoints)
            )
    except OSError as error:
        if error.filename is None:  # of the zip: no space
            raise
        raise UserError(f"nnU-Net could not export the model: {describe(error)}") from None
    except (AssertionError, RuntimeError, ValueError) as error:  # ValueError: a date before 1980
        raise UserError(f"nnU-Net could not export the model: {first_line(error)}; repair its folder.") from None


def _add_evaluations(
    archive: zipfile.ZipFile, model: Path, folds: Sequence[str], place: PurePosixPath
) -> dict[str, Evaluation]:
    """Add what was measured of the folds, where it was of all; and, by name, what it is as trained and calibrated."""
    paths = {fold: model / f"fold_{fold}" / "validation" / FILE_NAME for fold in folds}
    if not all(path.is_file() for path in paths.values()):
        return {}
    documents = {fold: read_document(path) for fold, path in paths.items()}
    for fold, path in paths.items():
        archive.write(path, str(place / f"fold_{fold}" / "validation" / FILE_NAME))
    evaluations = {"as trained": merge(documents)}
    with contextlib.suppress(UserError):  # there is no map of these folds, or no sample
        folders = find_fold_folders(model, folds)
        evaluations["calibrated"] = merge({fold: calibrated(documents[fold], folders[fold]) for fold in folds})
    return evaluations


def _hashes(archive: zipfile.ZipFile, place: PurePosixPath) -> dict[str, str]:
    """SHA-256 of the checkpoints and the map, as they are in the archive."""
    names = [name for name in archive.namelist() if name.endswith((".pth", MAP_FILE))]
    return {str(PurePosixPath(name).relative_to(place)): sha256(archive.open(name)) for name in names}


def _diagram(evaluations: Mapping[str, Evaluation], folder: Path) -> Path:
    """Draw the reliability on the predicted foreground."""
    from nnunet_nacl.show.reliability import draw_reliability

    return draw_reliability(
        {title: evaluation.bins["predicted"] for title, evaluation in evaluations.items()},
        folder / DIAGRAM_NAME,
        subtitle="validation cases, predicted foreground",
    )
