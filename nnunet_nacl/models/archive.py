"""Exports a trained model as nnU-Net's zip, with its calibration and a card, and installs such a zip safely."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from nnunet_nacl.calibration.checkpoints import CALIBRATED
from nnunet_nacl.calibration.heldout import AFTER_FOLDER
from nnunet_nacl.calibration.map_file import MAP_FILE
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.document import read_document
from nnunet_nacl.evaluation.folds import FILE_NAME, merge
from nnunet_nacl.evaluation.results import Evaluation
from nnunet_nacl.json_files import first_line, read_dict
from nnunet_nacl.models.card import CARD_NAME, card_text, stream_hash
from nnunet_nacl.models.portable import check_portable, portable_checkpoint, read_checkpoint

__all__ = ["export_model", "install_model"]

FINAL_NAME = "checkpoint_final.pth"
DIAGRAM_NAME = "model_card_reliability.png"
VALIDATIONS = {"as trained": "validation", "calibrated": AFTER_FOLDER}


def export_model(
    model: Path,
    output: Path,
    *,
    folds: Sequence[str] | None = None,
    portable: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write nnU-Net's zip of a model, and beside its files the calibrated checkpoints, the map, and the model card.

    Args:
        model: Model folder, ``nnUNet_results/DatasetNNN_Name/TRAINER__PLANS__CONFIGURATION``.
        output: The zip; replaced if it is there.
        folds: Which; None takes all that are trained to the end.
        portable: Record nnU-Net's own trainer in the checkpoints, and store the calibrated network, where there is
            one, as ``checkpoint_final.pth``: nnU-Net alone then predicts with it. The folder keeps its name, since
            under that of the stock trainer it would overwrite the site's own model.
        say: Takes one line of text for each step.

    Returns:
        ``output``.

    Raises:
        UserError: A fold is not trained to the end, only some folds are calibrated, the trainer changes the network
            (``portable``), or the zip cannot be written. Nothing is left half-written.
    """
    output = Path(output)
    if output.suffix != ".zip" or output.is_dir():
        raise UserError(f"-o {output}: give the name of a file that ends with .zip.")
    dataset, (trainer, plans_name, configuration) = model.parent.name, _parts(model)
    folds = _folds(model, folds)
    calibrated = _calibrated(model, folds)
    recorded = read_checkpoint(model / f"fold_{folds[0]}" / FINAL_NAME)["trainer_name"]
    if portable:
        check_portable(recorded)
    temporary = output.with_name(f".{secrets.token_hex(6)}.nnunet_nacl.tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        say(f"nnU-Net's export of {model.name}, folds {', '.join(folds)}")
        checkpoints = () if portable else (FINAL_NAME, *((CALIBRATED,) if calibrated else ()))
        _stock_export(dataset, temporary, configuration, trainer, plans_name, folds, checkpoints)
        place = PurePosixPath(dataset, model.name)
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive:
            if portable:
                for fold in folds:
                    source = model / f"fold_{fold}" / (CALIBRATED if calibrated else FINAL_NAME)
                    say(f"fold {fold}: {source.name}, with nnU-Net's own trainer recorded")
                    archive.writestr(str(place / f"fold_{fold}" / FINAL_NAME), portable_checkpoint(source))
            _add_measurements(archive, model, folds, place)
            _add_card(archive, model, folds, place, recorded, configuration, portable)
        os.replace(temporary, output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error}); choose another -o.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return output


def install_model(archive: Path, results: Path, *, overwrite: bool = False) -> list[str]:
    """Unpack an exported model into nnUNet_results.

    Args:
        archive: Zip that ``export_model`` or nnU-Net wrote.
        results: nnUNet_results.
        overwrite: Replace models that are there already.

    Returns:
        The model folders, relative to ``results``.

    Raises:
        UserError: It is no such zip, names a place outside ``results``, or holds a model that is there already.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [name for name in opened.namelist() if not name.endswith("/")]
            for name in names:
                parts = PurePosixPath(name.replace("\\", "/")).parts
                if ".." in parts or PurePosixPath(name).is_absolute() or ":" in parts[0]:
                    raise UserError(f"{archive}: holds the path {name!r}, outside its folder; do not trust this file.")
                if not parts[0].startswith("Dataset"):
                    raise UserError(f"{archive}: holds {name!r}; a model's zip holds DatasetNNN_Name/ alone.")
            models = sorted({"/".join(PurePosixPath(name).parts[:2]) for name in names if name.count("/") > 1})
            present = [model for model in models if (results / model).exists()]
            if present and not overwrite:
                raise UserError(f"{results / present[0]} is there already; pass --overwrite to replace it.")
            broken = opened.testzip()
            if broken:
                raise UserError(f"{archive}: {broken} is damaged; copy the file again.")
            opened.extractall(results)
            return models
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{archive}: not a zip file, or cut off ({error}); copy it again.") from None
    except OSError as error:
        raise UserError(
            f"{error.filename or archive}: {error.strerror or error}; check the path and the disk."
        ) from None


def _parts(model: Path) -> tuple[str, str, str]:
    parts = model.name.split("__")
    if len(parts) != 3:
        raise UserError(f"{model}: not a model folder of nnU-Net; its name is like TRAINER__PLANS__CONFIGURATION.")
    return parts[0], parts[1], parts[2]


def _folds(model: Path, folds: Sequence[str] | None) -> list[str]:
    if folds is None:
        found = sorted(path.parent.name.removeprefix("fold_") for path in model.glob(f"fold_*/{FINAL_NAME}"))
        folds = [fold for fold in found if fold.isdigit()] or found
        if not folds:
            raise UserError(f"{model}: no fold is trained to the end (there is no fold_X/{FINAL_NAME}).")
    for fold in folds:
        for name in (FINAL_NAME, "validation/summary.json"):
            if not (model / f"fold_{fold}" / name).is_file():
                raise UserError(
                    f"{model / f'fold_{fold}' / name} is missing; finish this fold, or name others with -f."
                )
    return list(dict.fromkeys(map(str, folds)))


def _calibrated(model: Path, folds: Sequence[str]) -> bool:
    """Whether the folds are calibrated: all of them, or none."""
    found = [fold for fold in folds if (model / f"fold_{fold}" / CALIBRATED).is_file()]
    if found and len(found) < len(folds):
        missing = ", ".join(fold for fold in folds if fold not in found)
        raise UserError(
            f"{model}: the folds {missing} are not calibrated, others are; run `nnunet_nacl calibrate` again."
        )
    return bool(found)


def _stock_export(dataset, output, configuration, trainer, plans, folds, checkpoints) -> None:
    from nnunetv2.model_sharing.model_export import export_pretrained_model

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            export_pretrained_model(
                dataset, str(output), (configuration,), trainer, plans, tuple(folds), True, tuple(checkpoints)
            )
    except (AssertionError, RuntimeError, FileNotFoundError) as error:
        raise UserError(f"nnU-Net could not export the model: {first_line(error)}") from None


def _add_measurements(archive: zipfile.ZipFile, model: Path, folds: Sequence[str], place: PurePosixPath) -> None:
    for fold in folds:
        for folder in VALIDATIONS.values():
            path = model / f"fold_{fold}" / folder / FILE_NAME
            if path.is_file():
                archive.write(path, str(place / f"fold_{fold}" / folder / FILE_NAME))
    if (model / MAP_FILE).is_file():
        archive.write(model / MAP_FILE, str(place / MAP_FILE))


def _add_card(
    archive, model: Path, folds, place: PurePosixPath, trainer: str, configuration: str, portable: bool
) -> None:
    evaluations = {title: found for title, folder in VALIDATIONS.items() if (found := _measured(model, folds, folder))}
    picture = _diagram(evaluations)
    if picture is not None:
        archive.writestr(str(place / DIAGRAM_NAME), picture)
    hashes = {}
    for name in archive.namelist():
        if name.endswith((".pth", MAP_FILE)):
            with archive.open(name) as stream:
                hashes[str(PurePosixPath(name).relative_to(place))] = stream_hash(stream)
    text = card_text(
        name=model.name,
        trainer=trainer,
        configuration=configuration,
        folds=folds,
        dataset_json=read_dict(model / "dataset.json"),
        plans=read_dict(model / "plans.json"),
        evaluations=evaluations,
        calibration_map=read_dict(model / MAP_FILE) if (model / MAP_FILE).is_file() else None,
        hashes=hashes,
        portable=portable,
        diagram=DIAGRAM_NAME if picture is not None else None,
    )
    archive.writestr(str(place / CARD_NAME), text)


def _measured(model: Path, folds: Sequence[str], folder: str) -> Evaluation | None:
    paths = {fold: model / f"fold_{fold}" / folder / FILE_NAME for fold in folds}
    if not all(path.is_file() for path in paths.values()):
        return None
    return merge({fold: read_document(path) for fold, path in paths.items()})


def _diagram(evaluations: dict[str, Evaluation]) -> bytes | None:
    """PNG of the reliability on the predicted foreground, None where nothing was measured."""
    if not evaluations:
        return None
    import tempfile

    from nnunet_nacl.figures.reliability import draw_reliability

    with tempfile.TemporaryDirectory() as folder:
        path = draw_reliability(
            {title: evaluation.pooled["predicted"] for title, evaluation in evaluations.items()},
            Path(folder) / DIAGRAM_NAME,
            subtitle="validation cases, predicted foreground",
        )
        return Path(path).read_bytes()
