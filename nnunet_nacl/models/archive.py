"""Exports a trained model as nnU-Net's zip, with its calibration and a card, and installs such a zip safely."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from nnunet_nacl.comparison.treated_folder import calibrated
from nnunet_nacl.documents.document import read_document
from nnunet_nacl.documents.map_file import (
    MAP_FILE,
    map_to_json,
    read_map,
    read_record,
    sha256,
    structures_of,
)
from nnunet_nacl.documents.map_record import MapRecord
from nnunet_nacl.documents.results import Evaluation
from nnunet_nacl.errors import UserError, describe
from nnunet_nacl.file_lock import locked
from nnunet_nacl.files import check_writable, regular_only, remove_leftovers, replacing, temporary_name
from nnunet_nacl.io.checkpoints import CALIBRATED, write_calibrated
from nnunet_nacl.io.companion_files import folds_asked_for
from nnunet_nacl.io.image_files import quiet
from nnunet_nacl.io.locate import find_fold_folders, folds_with
from nnunet_nacl.json_files import first_line
from nnunet_nacl.models.card import CARD_NAME, card_text
from nnunet_nacl.models.portable import check_portable, portable_checkpoint
from nnunet_nacl.prediction.trained_model import TrainedModel
from nnunet_nacl.runs.folds import FILE_NAME, merge

FINAL_NAME = "checkpoint_final.pth"
DIAGRAM_NAME = "model_card_reliability.png"
_TO_PREDICT = ("dataset.json", "plans.json", "fold_*/checkpoint_*.pth")


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
    trainer, plans_name, configuration = _parts(model)
    folds = _folds(model, folds)
    path = model / MAP_FILE if (model / MAP_FILE).is_file() else None
    opened = TrainedModel.open(model, folds=folds, calibration_map=path)
    structures, calibration = structures_of(opened.labels), opened.treatment.map
    if portable:
        check_portable(opened.trainer)
        calibration = read_map(path, structures, opened.labels.regions, form) if path else None
    check_writable(output)
    if output.exists() and not _is_export(output):
        raise UserError(f"{output} is no archive of `nnunet_nacl export` and would be lost; choose another -o.")
    place = PurePosixPath(model.parent.name, model.name)
    log(f"nnU-Net's export of {model.name}, folds {', '.join(folds)}")
    with replacing(output) as temporary:
        checkpoints = () if portable else (FINAL_NAME,)
        _stock_export(model.parent.name, temporary, configuration, trainer, plans_name, folds, checkpoints)
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive, tempfile.TemporaryDirectory() as work:
            baked = portable and calibration is not None
            if path and portable and calibration is not None:
                mark = map_to_json({form: calibration}, form, structures)
                write_calibrated(model, folds, FINAL_NAME, calibration, mark, output=Path(work))
                log(_cost(read_record(path), form))
            for fold in folds if portable else ():
                source = (Path(work) if baked else model) / f"fold_{fold}" / (CALIBRATED if baked else FINAL_NAME)
                log(f"fold {fold}: {source.name}, with nnU-Net's own trainer recorded")
                archive.writestr(str(place / f"fold_{fold}" / FINAL_NAME), portable_checkpoint(source))
            if path:  # as it is: outputs name its hash
                archive.write(path, str(place / MAP_FILE))
            evaluations = _add_evaluations(archive, model, folds, place)
            picture = _diagram(evaluations)
            if picture is not None:
                archive.writestr(str(place / DIAGRAM_NAME), picture)
            text = card_text(
                opened,
                evaluations=evaluations,
                calibration=calibration,
                hashes=_hashes(archive, place),
                form=form if baked else None,
                portable=portable,
                diagram=DIAGRAM_NAME if picture is not None else None,
            )
            archive.writestr(str(place / CARD_NAME), text.encode("utf-8", "surrogateescape"))
    return output


def _cost(record: MapRecord, form: str) -> str:
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


def install_model(archive: Path, results: Path, *, overwrite: bool = False) -> list[str]:
    """Unpack an exported model into nnUNet_results.

    Whatever keeps it from its end, KeyboardInterrupt too, all that was there is in its place again. A process that is
    killed may leave the model that was there beside its place: the next call with the archive says where.

    Args:
        archive: Zip that ``export_model`` or nnU-Net wrote.
        results: nnUNet_results.
        overwrite: Replace models that are there already. Without it, what nnU-Net chose among the models here
            (ensembles, ``inference_information.json``) is kept, too.

    Returns:
        The model folders, relative to ``results``.

    Raises:
        UserError: It is no such zip, damaged, lacks what nnU-Net needs to predict, names a place outside ``results``,
            or holds a model that is there already; or another call is at work there. Nothing is changed then.
    """
    archive, results = Path(archive), Path(results)
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(archive, "rb", opener=regular_only))
            opened = stack.enter_context(zipfile.ZipFile(file))
            entries = _entries(archive, opened.infolist())
            models = _models(archive, entries)
            datasets = sorted({entry.split("/")[0] for entry in entries})
            works = {dataset: stack.enter_context(_work_folder(results, dataset)) for dataset in datasets}
            moves = []
            for entry, files in entries.items():
                dataset, target = entry.split("/")[0], results / entry
                before = results / dataset / f".{target.name}.before_import"
                if os.path.lexists(before):
                    raise UserError(
                        f"{before}: an import that was killed left here what was at {target} before; move it back "
                        "there, or remove it, and import again."
                    )
                if os.path.lexists(target) and not overwrite:
                    if entry in models:
                        raise UserError(f"{target} is there already; pass --overwrite to replace it.")
                    continue  # what the site chose for itself, beside its models
                _unpack(opened, files.values(), works[dataset])
                moves.append((target, works[dataset] / entry, before))
            _replace(moves)
        return models
    except (zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:  # RuntimeError: encrypted
        raise UserError(
            f"{archive}: not a zip file, damaged or cut off ({first_line(error)}); copy it again."
        ) from None
    except OSError as error:
        raise UserError(describe(error, archive)) from None


def _entries(archive: Path, infos: Sequence[zipfile.ZipInfo]) -> dict[str, dict[str, zipfile.ZipInfo]]:
    """The files by name, by what they belong to: a model, or something that nnU-Net chose among its models."""
    entries: dict[str, dict[str, zipfile.ZipInfo]] = {}
    for info in infos:
        given = info.filename.replace("\\", "/")  # by tools of Windows
        if given.endswith("/"):
            continue
        name = info.filename = str(PurePosixPath(given))
        parts = PurePosixPath(name).parts
        if ".." in parts or name.startswith("/") or ":" in name:
            raise UserError(f"{archive}: holds the path {name!r}, outside its folder; do not trust this file.")
        if len(parts) < 2 or not parts[0].startswith("Dataset"):
            raise UserError(f"{archive}: holds {name!r}; a model's zip holds DatasetNNN_Name/ alone.")
        entries.setdefault("/".join(parts[: 3 if parts[1] == "ensembles" else 2]), {})[name] = info
    return dict(sorted(entries.items()))


def _models(archive: Path, entries: Mapping[str, Collection[str]]) -> list[str]:
    """Those of the entries that are models; UserError if there is none, or one lacks what nnU-Net needs to predict."""
    models = [entry for entry, names in entries.items() if "__" in entry.split("/")[1] and entry not in names]
    if not models:
        raise UserError(f"{archive}: holds no model; give the zip of `nnunet_nacl export` or of nnU-Net.")
    for model in models:
        names = [name.removeprefix(f"{model}/") for name in entries[model]]
        lacking = [pattern for pattern in _TO_PREDICT if not fnmatch.filter(names, pattern)]
        if lacking:
            raise UserError(
                f"{archive}: {model} has no {' and no '.join(lacking)}, and nnU-Net cannot predict with it; export the "
                "model again."
            )
    return models


@contextlib.contextmanager
def _work_folder(results: Path, dataset: str) -> Iterator[Path]:
    """Where a zip can be unpacked, on the file system of the data set's models; no other call is at work on them."""
    taken = f"another import of {dataset} is at work in {results}; wait until it has ended."
    with locked(results / f".{dataset}.import.lock", taken, temporary=True):
        place = results / dataset if (results / dataset).is_dir() else results
        remove_leftovers(place)
        with temporary_name(place) as work:
            yield work


def _unpack(opened: zipfile.ZipFile, files: Iterable[zipfile.ZipInfo], folder: Path) -> None:
    """Unpack files, and read them again; UserError where one does not hold what the zip does."""
    opened.extractall(folder, files)
    for file in files:
        with opened.open(file) as stream:
            if sha256(folder / file.filename) != sha256(stream):
                raise UserError(f"{folder / file.filename}: was not written as it is in the zip; check the disk.")


def _replace(moves: Sequence[tuple[Path, Path, Path]]) -> None:
    """Put new files or folders in the place of others; if anything goes wrong, all is as it was.

    Args:
        moves: The place, what is to be there, and where what is there now is kept meanwhile.
    """
    try:
        for target, new, before in moves:
            target.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(target):
                os.replace(target, before)
            os.replace(new, target)
        for _, new, before in moves:
            if os.path.lexists(before):
                os.replace(before, new)  # at once, and removed with the work folder
    except BaseException:  # Ctrl-C may come between any two lines: the disk alone tells what is done
        for target, new, before in moves:
            if not os.path.lexists(new):
                os.replace(target, new)
            if os.path.lexists(before):
                os.replace(before, target)
        raise


def _parts(model: Path) -> tuple[str, str, str]:
    parts = model.name.split("__")
    if len(parts) != 3:
        raise UserError(f"{model}: not a model folder of nnU-Net; its name is like TRAINER__PLANS__CONFIGURATION.")
    return parts[0], parts[1], parts[2]


def _folds(model: Path, folds: Sequence[str] | None) -> list[str]:
    if folds is None:
        found = folds_with(model, FINAL_NAME)
        folds = [fold for fold in found if fold != "all"] or found
        if not folds:
            raise UserError(f"{model}: no fold is trained to the end (there is no fold_X/{FINAL_NAME}).")
    folds = folds_asked_for(folds)
    for fold in folds:
        for name in (FINAL_NAME, "progress.png", "validation/summary.json"):  # nnU-Net's export wants all of them
            if not (model / f"fold_{fold}" / name).is_file():
                raise UserError(
                    f"{model / f'fold_{fold}' / name} is missing; finish this fold (`nnUNetv2_train ... --c`, or "
                    "`--val` where the validation alone is missing), or name others with -f."
                )
    return list(folds)


def _stock_export(
    dataset: str,
    output: Path,
    configuration: str,
    trainer: str,
    plans: str,
    folds: Sequence[str],
    checkpoints: Sequence[str],
) -> None:
    from nnunetv2.model_sharing.model_export import export_pretrained_model

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
    hashes = {}
    for name in archive.namelist():
        if name.endswith((".pth", MAP_FILE)):
            with archive.open(name) as stream:
                hashes[str(PurePosixPath(name).relative_to(place))] = sha256(stream)
    return hashes


def _diagram(evaluations: dict[str, Evaluation]) -> bytes | None:
    """PNG of the reliability on the predicted foreground, None where nothing was measured."""
    if not evaluations:
        return None
    from nnunet_nacl.show.reliability import draw_reliability

    with tempfile.TemporaryDirectory() as folder:
        path = draw_reliability(
            {title: evaluation.pooled["predicted"] for title, evaluation in evaluations.items()},
            Path(folder) / DIAGRAM_NAME,
            subtitle="validation cases, predicted foreground",
        )
        return Path(path).read_bytes()
