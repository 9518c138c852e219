"""Makes the content of comparison.json."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import cast

import nnunet_nacl
from nnunet_nacl.cases.file_key import FileKey
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
from nnunet_nacl.evaluation.methods import ComparedMethod
from nnunet_nacl.metrics.statistics import CONFIDENCE, mean_interval


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
    component_structures: dict[str, None] = {}  # a set that keeps its order
    for comparison in comparisons:
        component_structures |= dict.fromkeys(comparison.component_structures)
    columns_of_all = make_columns(_names_of_structures(comparisons), component_structures)
    for column_id, column in columns_of_all.items():
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
    """Names by nnU-Net's key; ``structure`` and the key where data sets differ in the name."""
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
            means[column][method] = MeanOfMethod(
                **asdict(interval), n=int(values_of_method.count())
            )
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
