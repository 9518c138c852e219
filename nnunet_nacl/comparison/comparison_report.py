"""comparison.json, the report of ``nnunet_nacl compare``: its form, and how it is made.

Of it commands read `files` alone, to know what an earlier comparison wrote. The page of files and
the JSON schema are made from these types.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Annotated, cast

from pydantic import NonNegativeInt
from typing_extensions import TypedDict

import nnunet_nacl
from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.cases.record_key import FileKey
from nnunet_nacl.comparison.comparison import Column, Comparison, make_columns
from nnunet_nacl.comparison.methods import ComparedMethod
from nnunet_nacl.metrics.statistics import CONFIDENCE, PairedDifference, mean_interval
from nnunet_nacl.utilities.json_types import Number, doc

SCHEMA_VERSION = 5  # keys may be added within a version


class ReportedSettings(TypedDict):
    """How methods were compared."""

    confidence: Annotated[float, doc("Of all intervals.")]
    n_bootstrap: Annotated[NonNegativeInt, doc("Samples of the bootstrap.")]
    seed: Annotated[int, doc("Of its random numbers.")]
    allow_missing: Annotated[bool, doc("Whether only folds and cases that all have count.")]
    allow_training_cases: Annotated[bool, doc("Whether cases count that networks were trained on.")]
    groups: Annotated[
        str | None,
        doc("How patients were read from the cases' names; null for the models' own rule."),
    ]
    evaluation: Annotated[
        dict[str, EvaluationSettings], doc("By data set, how its cases were measured.")
    ]


class ReportedMethod(TypedDict):
    """A method that was compared."""

    name: Annotated[str, doc("The key of its values.")]
    label: Annotated[str, doc("Its name in tables.")]
    trainer: Annotated[str | None, doc("Class of the trainer; null for a folder of predictions.")]
    ranked: Annotated[bool, doc("Whether it is tested, not only shown.")]


class ReportedTable(TypedDict):
    """A table that was written."""

    id: Annotated[str, doc("Its name.")]
    dataset: Annotated[str | None, doc("Data set; null where it shows all.")]
    title: Annotated[str, doc("Its heading.")]
    caption: Annotated[str, doc("What it shows.")]
    files: Annotated[list[str], doc("Where it lies.")]


class ReportedFigure(ReportedTable):
    """A figure that was written."""

    alt: Annotated[str, doc("A text in place of the figure.")]


class TestedDifference(PairedDifference):
    """A difference between a method and the first one."""

    dataset: Annotated[str, doc("Data set.")]
    column: Annotated[str, doc("What was compared.")]
    family: Annotated[
        str,
        doc("Of the tests that were corrected together: `leading`, or one that is exploratory."),
    ]
    trainer: Annotated[str, doc("The method.")]
    reference: Annotated[str, doc("The first method.")]
    same_as: Annotated[
        str,
        doc("Method with the same values in every case: not tested again, not counted; or empty."),
    ]
    p_holm: Annotated[Number, doc("`p` after Holm's correction.")]
    verdict: Annotated[
        str, doc("better, worse, none, equal (to the first method in every case) or untested.")
    ]


class MeanOfMethod(TypedDict):
    """A mean over cases."""

    mean: Annotated[Number, doc("The mean; null where undefined.")]
    low: Annotated[Number, doc("Lower end of its 95 % interval.")]
    high: Annotated[Number, doc("Upper end.")]
    n: Annotated[NonNegativeInt, doc("Cases where the value is defined.")]


class ComparedDataSet(TypedDict):
    """What was compared on one data set."""

    name: Annotated[str, doc("nnU-Net's name.")]
    folds: Annotated[list[str], doc("Of the models; empty for folders of predictions alone.")]
    regions: Annotated[bool, doc("Whether structures are sigmoid regions.")]
    structures: Annotated[dict[str, str], doc("Names by nnU-Net's key.")]
    cases: Annotated[list[str], doc("Cases that all methods have.")]
    patients: Annotated[dict[str, str], doc("By case; empty where each case is its own.")]
    n_patients: Annotated[NonNegativeInt, doc("How many patients they are.")]
    configuration: Annotated[
        str, doc("Such as 3d_fullres; empty for folders of predictions alone.")
    ]
    plans: Annotated[str, doc("Name of the plans; empty for folders of predictions alone.")]
    values: Annotated[
        dict[str, dict[str, list[Number]]], doc("By column and method, in the order of the cases.")
    ]
    means: Annotated[dict[str, dict[str, MeanOfMethod]], doc("By column and method.")]


class WrittenFile(TypedDict):
    """A table or figure by its content."""

    size: Annotated[NonNegativeInt, doc("Bytes.")]
    digest: Annotated[str, doc("Of its content: a file that differs is not replaced.")]


class ComparisonReport(TypedDict):
    """comparison.json, which `nnunet_nacl compare` writes: what was compared, every value, the
    tests."""

    schema_version: Annotated[int, doc("Version of this format.")]
    generated_by: Annotated[str, doc("Package and version.")]
    created: Annotated[str, doc("Time, ISO 8601.")]
    command: Annotated[str, doc("The command as it was given.")]
    settings: Annotated[ReportedSettings, doc("How it was done.")]
    notes: Annotated[list[str], doc("Caveats.")]
    trainers: Annotated[list[ReportedMethod], doc("The methods, the reference first.")]
    columns: Annotated[
        dict[str, Column],
        doc("What was compared, by id such as `Dice`, `HD95_mm:2`, `ECE:foreground`."),
    ]
    tables: Annotated[list[ReportedTable], doc("Tables.")]
    statistics: Annotated[list[TestedDifference], doc("Differences to the first method.")]
    figures: Annotated[list[ReportedFigure], doc("Figures.")]
    files: Annotated[dict[str, WrittenFile], doc("By file name, each table and figure.")]
    datasets: Annotated[list[ComparedDataSet], doc("Each data set.")]


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
        written: By file name the files of both.
        command: What made the comparison.
    """
    notes: list[str] = []
    statistics: list[TestedDifference] = []
    for comparison in comparisons:
        notes += comparison.notes
        rows = comparison.statistics.to_dict("records")
        statistics += cast(list[TestedDifference], rows)
    component_structures: dict[str, None] = {}  # a set that keeps its order
    for comparison in comparisons:
        component_structures |= dict.fromkeys(comparison.component_structures)
    files = {}
    for file_name, key in written.items():
        files[file_name] = WrittenFile(size=key["size"], digest=key["digest"])
    return ComparisonReport(
        schema_version=SCHEMA_VERSION,
        generated_by=f"nnunet_nacl {nnunet_nacl.__version__}",
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        command=command,
        settings=_report_settings(comparisons),
        notes=notes,
        trainers=[_report_method(method) for method in comparisons[0].methods],
        columns=make_columns(_names_of_structures(comparisons), component_structures),
        tables=list(tables),
        statistics=statistics,
        figures=list(figures),
        files=files,
        datasets=[_report_data_set(comparison) for comparison in comparisons],
    )


def _report_settings(comparisons: Sequence[Comparison]) -> ReportedSettings:
    options = comparisons[0].options
    return ReportedSettings(
        confidence=CONFIDENCE,
        n_bootstrap=options.n_bootstrap,
        seed=options.seed,
        allow_missing=options.allow_missing,
        allow_training_cases=options.allow_training_cases,
        groups=options.groups,
        evaluation={comparison.name: comparison.settings for comparison in comparisons},
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
                mean=interval.mean,
                low=interval.low,
                high=interval.high,
                n=int(values_of_method.count()),
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
