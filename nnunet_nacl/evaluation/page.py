"""Writes comparison.json and report.html, the page of a comparison."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import nnunet_nacl
from nnunet_nacl.cases.case import MASK_NOTES
from nnunet_nacl.cases.file_key import FileKey, file_key
from nnunet_nacl.cases.ownership import Digests, OwnedFiles, check_no_others, read_pending
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.comparison import Comparison, make_columns
from nnunet_nacl.evaluation.comparison_report import (
    SCHEMA_VERSION,
    ComparedDataSet,
    ComparisonReport,
    ComparisonSettings,
    MeanOfMethod,
    MeasuringSettings,
    ReportedColumn,
    ReportedFigure,
    ReportedMethod,
    ReportedTable,
    TestedDifference,
    WrittenFile,
)
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


def _as_key(file: WrittenFile) -> FileKey:
    return FileKey(path="", size=file["size"], mtime_ns=0, digest=file["digest"])


def comparison_to_json(
    comparisons: Sequence[Comparison],
    tables: Sequence[ReportedTable],
    figures: Sequence[ReportedFigure],
    written: Mapping[str, FileKey],
    *,
    command: str,
) -> ComparisonReport:
    """The content of comparison.json: what was compared, every value, the tests.

    Args:
        comparisons: One for each data set.
        tables: What was written of them.
        figures: Likewise.
        written: By place the files of both.
        command: What made the comparison.
    """
    notes: list[str] = []
    statistics: list[TestedDifference] = []
    for comparison in comparisons:
        notes += comparison.notes
        rows = comparison.statistics.to_dict("records")
        statistics += cast(list[TestedDifference], rows)
    columns = {}
    for column_id, column in make_columns(_names_of_structures(comparisons)).items():
        columns[column_id] = cast(ReportedColumn, column._asdict())
    files = {}
    for place, key in written.items():
        files[place] = WrittenFile(size=key["size"], digest=key["digest"])
    return ComparisonReport(
        schema_version=SCHEMA_VERSION,
        generated_by=f"nnunet_nacl {nnunet_nacl.__version__}",
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        command=command,
        settings=_report_settings(comparisons),
        notes=notes,
        trainers=[_report_method(method) for method in comparisons[0].methods],
        columns=columns,
        tables=list(tables),
        statistics=statistics,
        figures=list(figures),
        files=files,
        datasets=[_report_data_set(comparison) for comparison in comparisons],
    )


def _report_settings(comparisons: Sequence[Comparison]) -> ComparisonSettings:
    options = comparisons[0].options
    evaluation = {}
    for comparison in comparisons:
        evaluation[comparison.name] = cast(MeasuringSettings, vars(comparison.settings))
    return ComparisonSettings(
        confidence=CONFIDENCE,
        n_bootstrap=options.n_bootstrap,
        seed=options.seed,
        allow_missing=options.allow_missing,
        allow_training_cases=options.allow_training_cases,
        groups=options.groups,
        evaluation=evaluation,
    )


def _names_of_structures(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """Names by nnU-Net's key; where data sets call a structure otherwise, ``structure`` and the
    key."""
    names: dict[str, str] = {}
    for comparison in comparisons:
        for key, name in comparison.structures.items():
            if names.setdefault(key, name) != name:
                names[key] = f"structure {key}"
    return names


def _report_method(method: ComparedMethod) -> ReportedMethod:
    return ReportedMethod(
        name=method.name, label=method.label, trainer=method.trainer, ranked=method.ranked
    )


def _report_data_set(comparison: Comparison) -> ComparedDataSet:
    values: dict[str, dict[str, list[float]]] = {}
    means: dict[str, dict[str, MeanOfMethod]] = {}
    for column in comparison.columns:
        values[column] = {}
        means[column] = {}
        for method, values_of_method in comparison.values[column].items():
            interval = mean_interval(values_of_method, **comparison.draws)
            values[column][method] = values_of_method.tolist()
            means[column][method] = cast(MeanOfMethod, asdict(interval))
    return ComparedDataSet(
        name=comparison.name,
        folds=list(comparison.folds),
        regions=comparison.regions,
        structures=dict(comparison.structures),
        cases=comparison.cases,
        patients=dict(comparison.patients),
        n_patients=comparison.n_patients,
        configuration=comparison.options.configuration,
        plans=comparison.options.plans,
        values=values,
        means=means,
    )


def write_comparison(document: ComparisonReport, files: OwnedFiles) -> Path:
    """Write comparison.json, last of all, and remove tables and figures of the one before that it
    does not list."""
    path = files.folder / COMPARISON_FILE
    (files.folder / PAGE_NAME).unlink(missing_ok=True)  # which shows the one before
    write_atomically(path, to_json_text(document))
    files.settle(document["files"])
    return path


def comparison_page(data: ComparisonReport, tables: Sequence[Table], folder: Path) -> str:
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
