"""Installs the zip of a trained model safely: whole or not at all, and nothing outside nnUNet_results."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from nnunet_nacl.documents.map_file import sha256
from nnunet_nacl.errors import UserError, describe
from nnunet_nacl.files import locked, regular_only, remove_leftovers, temporary_folder
from nnunet_nacl.json_files import first_line

_TO_PREDICT = ("dataset.json", "plans.json", "fold_*/checkpoint_*.pth")


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
    with locked(results / f".{dataset}.import.lock", taken):
        place = results / dataset if (results / dataset).is_dir() else results
        remove_leftovers(place)
        with temporary_folder(place) as work:
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
