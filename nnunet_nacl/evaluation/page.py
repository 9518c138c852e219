"""Writes comparison.json and report.html, the page of a comparison."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt
from typing_extensions import TypedDict

import nnunet_nacl
from nnunet_nacl.cases.case import MASK_NOTES
from nnunet_nacl.cases.file_key import FileKey, file_key
from nnunet_nacl.cases.ownership import Digests, OwnedFiles, check_no_others, read_pending
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.comparison import Comparison, make_columns
from nnunet_nacl.evaluation.figures import DIFFERENCES, FIGURES, places_of_figures
from nnunet_nacl.evaluation.methods import ComparedMethod
from nnunet_nacl.evaluation.tables import NOT_TESTED, TABLES, Table, places_of_tables
from nnunet_nacl.files import (
    check_ours,
    check_writable,
    is_file_name,
    lies_inside,
    to_json_text,
    write_atomically,
)
from nnunet_nacl.json_files import decode, read_dict
from nnunet_nacl.metrics.calibration_error import MASK_METRICS
from nnunet_nacl.metrics.statistics import CONFIDENCE, mean_interval
from nnunet_nacl.reports.rendering import render_page

COMPARISON_FILE = "comparison.json"
PAGE_NAME = "report.html"
PENDING_FILE = "comparison.pending.json"
"""Names files until comparison.json does."""
SCHEMA_VERSION = 4  # keys may be added within a version
_OPTIONS = ("n_bootstrap", "seed", "allow_missing", "allow_training_cases", "groups")
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
# bytes; a drawing with that many points is smaller, and quicker to show, as PNG
_LARGEST_SVG = 400_000


def check_output_folder(folder: Path, comparisons: Sequence[Comparison]) -> None:
    """UserError, before any work, where no comparison can be written, or it would replace what none
    wrote."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"-o {folder} is a file; give a folder.")
    check_ours((folder / COMPARISON_FILE, folder / PAGE_NAME))
    files = files_of_comparison(folder)
    places = {*places_of_tables(comparisons), *places_of_figures(comparisons), *files.known_places}
    check_no_others(files.in_the_way(sorted(places)))
    for path in (
        folder / COMPARISON_FILE,
        folder / TABLES / "table.csv",
        folder / FIGURES / "figure.png",
    ):
        check_writable(path)


def files_of_comparison(folder: Path) -> OwnedFiles:
    """The tables and figures of a folder, by the digests in its comparison.json and in a pending
    one.

    Earlier versions wrote no digests: then what the file lists counts as ours.
    """
    pending = folder / PENDING_FILE
    known = _listed(folder)
    for place, keys in read_pending(pending).items():
        known.setdefault(place, []).extend(keys)
    known = {place: keys for place, keys in known.items() if _is_place_of_file(place)}
    return OwnedFiles(folder, pending, known)


def _is_place_of_file(place: str) -> bool:
    """Whether a file lies where this package puts it: comparison.json may have been edited by
    hand."""
    folder, _, name = place.partition("/")
    return folder in (TABLES, FIGURES) and is_file_name(name)


def _listed(folder: Path) -> Digests:
    """Files that a comparison.json names; none where it is missing, damaged or something else."""
    try:
        document = read_dict(folder / COMPARISON_FILE)
        if "files" in document:
            written = decode(dict[str, WrittenFile], document["files"], folder)
            return {place: [_as_key(file)] for place, file in written.items()}
        entries = [*document["tables"], *document["figures"]]
        places = {str(place) for entry in entries for place in entry["files"]}
        return {
            place: [file_key(folder / place)]
            for place in places
            if lies_inside(folder / place, folder)
        }
    except (UserError, OSError, KeyError, TypeError):
        return {}


class WrittenFile(TypedDict):
    """A table or figure by its content."""

    size: NonNegativeInt
    digest: str


def _as_key(file: WrittenFile) -> FileKey:
    return FileKey(path="", size=file["size"], mtime_ns=0, digest=file["digest"])


def comparison_to_json(
    comparisons: Sequence[Comparison],
    tables: Sequence[Mapping[str, Any]],
    figures: Sequence[Mapping[str, Any]],
    written: Mapping[str, FileKey],
    *,
    command: str,
) -> dict[str, Any]:
    """The content of comparison.json, which ``nnunet_nacl compare`` writes: what was compared,
    every value, the tests.

    There is a comparison for each data set; ``tables`` and ``figures`` are what was written of
    them, and ``written`` by place their files.

    Keys:
        schema_version: Version of this format.
        generated_by: Package and version.
        created, command: When it was made, and by which command.
        settings: ``n_bootstrap`` and ``seed`` of the bootstrap, ``confidence`` of intervals, and
            the options.
        notes: Caveats.
        trainers: A list of ``name`` (the key elsewhere), ``label``, ``trainer`` (class; null for
            -i), ``ranked``.
        columns: What was compared, by id (``Dice``, ``HD95_mm:2``, ``ECE:foreground``): ``title``,
            ``group``, whether ``lower`` or ``higher`` is ``better``, ``unit``, ``metric``,
            ``mask``, ``structure`` (key; null for all), ``family`` (null if it is not tested).
        tables: A list of ``id``, ``dataset``, ``title``, ``caption`` and ``files``.
        figures: The same, with ``alt``, a text in place of the figure: ``id``, ``dataset``,
            ``title``, ``caption``, ``files``.
        files: By place size and digest of each table and figure: a file that differs is not
            replaced.
        statistics: A list of tested differences: ``dataset``, ``column``, ``family`` (tests that
            were corrected together), ``trainer`` and ``reference``, over ``n`` cases of
            ``n_patients``; means ``mean`` and ``mean_reference``, ``difference`` with its 95 %
            interval ``low`` to ``high``; patients ``n_better``, ``n_worse`` and ``n_equal``;
            ``rank_biserial``, ``p`` (Wilcoxon), ``p_holm`` and ``verdict``.
        datasets: A list of ``name``, ``configuration``, ``plans``, ``folds``, ``regions``,
            ``structures`` (names by key), ``cases``, ``patients`` by case, ``n_patients``; by
            column and trainer ``values`` of the cases (null where undefined) and ``means``, with
            intervals.
    """
    first = comparisons[0]
    settings: dict[str, Any] = {"confidence": CONFIDENCE}
    for option in _OPTIONS:
        settings[option] = getattr(first.options, option)
    settings["evaluation"] = {
        comparison.name: vars(comparison.settings) for comparison in comparisons
    }
    notes: list[str] = []
    statistics: list[dict[Any, Any]] = []
    for comparison in comparisons:
        notes += comparison.notes
        statistics += comparison.statistics.to_dict("records")
    columns = make_columns(_names_of_structures(comparisons))
    return {
        "schema_version": SCHEMA_VERSION,
        "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "settings": settings,
        "notes": notes,
        "trainers": [_method(method) for method in first.methods],
        "columns": {column_id: column._asdict() for column_id, column in columns.items()},
        "tables": list(tables),
        "statistics": statistics,
        "figures": list(figures),
        "files": {
            place: WrittenFile(size=key["size"], digest=key["digest"])
            for place, key in written.items()
        },
        "datasets": [_dataset(comparison) for comparison in comparisons],
    }


def _names_of_structures(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """Names by nnU-Net's key; where data sets call a structure otherwise, ``structure`` and the
    key."""
    names: dict[str, str] = {}
    for comparison in comparisons:
        for key, name in comparison.structures.items():
            if names.setdefault(key, name) != name:
                names[key] = f"structure {key}"
    return names


def _method(method: ComparedMethod) -> dict[str, Any]:
    return {
        "name": method.name,
        "label": method.label,
        "trainer": method.trainer,
        "ranked": method.ranked,
    }


def _dataset(comparison: Comparison) -> dict[str, Any]:
    values: dict[str, dict[str, list[float]]] = {}
    means: dict[str, dict[str, Any]] = {}
    for column in comparison.columns:
        by_method = comparison.values[column]
        values[column] = {method: by_method[method].tolist() for method in by_method}
        means[column] = {
            method: asdict(mean_interval(by_method[method], **comparison.draws))
            for method in by_method
        }
    return {
        "name": comparison.name,
        "folds": comparison.folds,
        "regions": comparison.regions,
        "structures": comparison.structures,
        "cases": comparison.cases,
        "patients": comparison.patients,
        "n_patients": comparison.n_patients,
        "configuration": comparison.options.configuration,
        "plans": comparison.options.plans,
        "values": values,
        "means": means,
    }


def write_comparison(document: dict[str, Any], files: OwnedFiles) -> Path:
    """Write comparison.json, last of all, and remove tables and figures of the one before that it
    does not list."""
    path = files.folder / COMPARISON_FILE
    (files.folder / PAGE_NAME).unlink(missing_ok=True)  # which shows the one before
    write_atomically(path, to_json_text(document))
    files.settle(document["files"])
    return path


def comparison_page(data: Mapping[str, Any], tables: Sequence[Table], folder: Path) -> str:
    """The page by the content of comparison.json, with the figures that lie in its folder."""
    settings = data["settings"]["evaluation"].values()
    masks = {}
    for mask, note in MASK_NOTES.items():
        masks[mask] = "; ".join(
            dict.fromkeys(note.format(**of_data_set) for of_data_set in settings)
        )
    main_figures = {}
    other_figures = []
    for figure in data["figures"]:
        embedded = {**figure, "src": _embedded(folder, figure["files"])}
        if figure["id"].startswith(DIFFERENCES):
            main_figures[figure["dataset"]] = embedded
        else:
            other_figures.append(embedded)
    return render_page(
        "page.html",
        data=data,
        tables=tables,
        main=main_figures,
        figures=other_figures,
        not_tested=NOT_TESTED,
        calibration_metrics=MASK_METRICS,
        masks=masks,
    )


def _embedded(folder: Path, files: Sequence[str]) -> str:
    """The value of ``src`` for one of the two files of a figure: SVG unless it is large, else
    PNG."""
    by_suffix = {Path(name).suffix: folder / name for name in files}
    suffix = ".svg"
    if by_suffix[suffix].stat().st_size > _LARGEST_SVG:
        suffix = ".png"
    content = base64.b64encode(by_suffix[suffix].read_bytes()).decode()
    return f"data:{_TYPES[suffix]};base64,{content}"
