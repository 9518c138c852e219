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
from nnunet_nacl.evaluation.tables import NOT_TESTED, TABLES, Table, places_of_tables
from nnunet_nacl.files import check_ours, check_writable, is_file_name, lies_inside, to_json_text, write_atomically
from nnunet_nacl.json_files import decode, read_dict
from nnunet_nacl.metrics.calibration_error import MASK_METRICS
from nnunet_nacl.metrics.statistics import CONFIDENCE, mean_interval
from nnunet_nacl.reports.rendering import render_page

COMPARISON_FILE, PAGE_NAME = "comparison.json", "report.html"
PENDING_FILE = "comparison.pending.json"
"""Names files until comparison.json does."""
SCHEMA_VERSION = 4  # keys may be added within a version
_METHOD = ("name", "label", "trainer", "ranked")
_DATASET = ("name", "folds", "regions", "structures", "cases", "patients", "n_patients")
_OPTIONS = ("n_bootstrap", "seed", "allow_missing", "allow_training_cases", "groups")
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_LARGEST_SVG = 400_000  # bytes; a drawing with that many points is smaller, and quicker to show, as PNG


def check_output_folder(folder: Path, comparisons: Sequence[Comparison]) -> None:
    """UserError, before any work, where no comparison can be written, or it would replace what none wrote."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"-o {folder} is a file; give a folder.")
    check_ours((folder / COMPARISON_FILE, folder / PAGE_NAME))
    files = files_of_comparison(folder)
    check_no_others(
        files.in_the_way({*places_of_tables(comparisons), *places_of_figures(comparisons), *files.known_places})
    )
    for path in (folder / COMPARISON_FILE, folder / TABLES / "table.csv", folder / FIGURES / "figure.png"):
        check_writable(path)


def files_of_comparison(folder: Path) -> OwnedFiles:
    """The tables and figures of a folder, by the digests in its comparison.json and in a pending one.

    Earlier versions wrote no digests: then what the file lists counts as ours.
    """
    pending = folder / PENDING_FILE
    known = _listed(folder)
    for place, keys in read_pending(pending).items():
        known.setdefault(place, []).extend(keys)
    known = {place: keys for place, keys in known.items() if _is_place_of_file(place)}
    return OwnedFiles(folder, pending, known)


def _is_place_of_file(place: str) -> bool:
    """Whether a file lies where this package puts it: comparison.json may have been edited by hand."""
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
        return {place: [file_key(folder / place)] for place in places if lies_inside(folder / place, folder)}
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
    """The content of comparison.json, which ``nnunet_nacl compare`` writes: what was compared, every value, the tests.

    There is a comparison for each data set; ``tables`` and ``figures`` are what was written of them, and ``written``
    by place their files.

    Keys:
        schema_version: Version of this format.
        generated_by: Package and version.
        created, command: When it was made, and by which command.
        settings: ``n_bootstrap`` and ``seed`` of the bootstrap, ``confidence`` of intervals, and the options.
        notes: Caveats.
        trainers: A list of ``name`` (the key elsewhere), ``label``, ``trainer`` (class; null for -i), ``ranked``.
        columns: What was compared, by id (``Dice``, ``HD95_mm:2``, ``ECE:foreground``): ``title``, ``group``, whether
            ``lower`` or ``higher`` is ``better``, ``unit``, ``metric``, ``mask``, ``structure`` (key; null for all),
            ``family`` (null if it is not tested).
        tables: A list of ``id``, ``dataset``, ``title``, ``caption`` and ``files``.
        figures: The same, with ``alt``, a text in place of the figure: ``id``, ``dataset``, ``title``, ``caption``,
            ``files``.
        files: By place size and digest of each table and figure: a file that differs is not replaced.
        statistics: A list of tested differences: ``dataset``, ``column``, ``family`` (tests that were corrected
            together), ``trainer`` and ``reference``, over ``n`` cases of ``n_patients``; means ``mean`` and
            ``mean_reference``, ``difference`` with its 95 % interval ``low`` to ``high``; patients ``n_better``,
            ``n_worse`` and ``n_equal``; ``rank_biserial``, ``p`` (Wilcoxon), ``p_holm`` and ``verdict``.
        datasets: A list of ``name``, ``configuration``, ``plans``, ``folds``, ``regions``, ``structures`` (names by
            key), ``cases``, ``patients`` by case, ``n_patients``; by column and trainer ``values`` of the cases (null
            where undefined) and ``means``, with intervals.
    """
    first, structures = comparisons[0], dict[str, str]()
    for key, name in (item for comparison in comparisons for item in comparison.structures.items()):
        structures[key] = name if structures.get(key, name) == name else f"structure {key}"
    return {
        "schema_version": SCHEMA_VERSION,
        "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "settings": {
            "confidence": CONFIDENCE,
            **{key: getattr(first.options, key) for key in _OPTIONS},
            "evaluation": {comparison.name: vars(comparison.settings) for comparison in comparisons},
        },
        "notes": [note for comparison in comparisons for note in comparison.notes],
        "trainers": [{key: getattr(method, key) for key in _METHOD} for method in first.methods],
        "columns": {name: column._asdict() for name, column in make_columns(structures).items()},
        "tables": list(tables),
        "statistics": [row for comparison in comparisons for row in comparison.statistics.to_dict("records")],
        "figures": list(figures),
        "files": {place: WrittenFile(size=key["size"], digest=key["digest"]) for place, key in written.items()},
        "datasets": [_dataset(comparison) for comparison in comparisons],
    }


def _dataset(comparison: Comparison) -> dict[str, Any]:
    options, values, means = comparison.options, dict[str, Any](), dict[str, Any]()
    for column in comparison.columns:
        of_column = comparison.values[column]
        values[column] = {name: of_column[name].tolist() for name in of_column}
        means[column] = {name: asdict(mean_interval(of_column[name], **comparison.draws)) for name in of_column}
    chosen = {"configuration": options.configuration, "plans": options.plans, "values": values, "means": means}
    return {key: getattr(comparison, key) for key in _DATASET} | chosen


def write_comparison(document: dict[str, Any], files: OwnedFiles) -> Path:
    """Write comparison.json, last of all, and remove tables and figures of the one before that it does not list."""
    path = files.folder / COMPARISON_FILE
    (files.folder / PAGE_NAME).unlink(missing_ok=True)  # which shows the one before
    write_atomically(path, to_json_text(document))
    files.settle(document["files"])
    return path


def comparison_page(data: Mapping[str, Any], tables: Sequence[Table], folder: Path) -> str:
    """The page by the content of comparison.json, with the figures that lie in its folder."""
    figures = [{**figure, "src": _embedded(folder, figure["files"])} for figure in data["figures"]]
    evaluation = data["settings"]["evaluation"].values()
    return render_page(
        "page.html",
        data=data,
        tables=tables,
        main={figure["dataset"]: figure for figure in figures if figure["id"].startswith(DIFFERENCES)},
        figures=[figure for figure in figures if not figure["id"].startswith(DIFFERENCES)],
        not_tested=NOT_TESTED,
        calibration_metrics=MASK_METRICS,
        masks={mask: "; ".join({note.format(**its): 0 for its in evaluation}) for mask, note in MASK_NOTES.items()},
    )


def _embedded(folder: Path, files: Sequence[str]) -> str:
    """The value of ``src`` for one of the two files of a figure: SVG unless it is large, else PNG."""
    found = {Path(name).suffix: folder / name for name in files}
    suffix = ".svg" if found[".svg"].stat().st_size <= _LARGEST_SVG else ".png"
    return f"data:{_TYPES[suffix]};base64,{base64.b64encode(found[suffix].read_bytes()).decode()}"
