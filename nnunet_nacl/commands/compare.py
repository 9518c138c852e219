"""`compare`: compares models or predictions on the same cases, with statistics, tables, figures and
a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from os import PathLike
from pathlib import Path

import pandas as pd

from nnunet_nacl.cases.groups import read_groups
from nnunet_nacl.commands.python_function import python_function
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.alignment import align
from nnunet_nacl.evaluation.comparison import Comparison
from nnunet_nacl.evaluation.comparison_json import comparison_to_json
from nnunet_nacl.evaluation.components import read_findings
from nnunet_nacl.evaluation.headline import Headline, make_headlines
from nnunet_nacl.evaluation.located import LocatedComparison, locate
from nnunet_nacl.evaluation.methods import (
    ComparedMethod,
    ComparisonOptions,
    label_methods,
    read_method,
)
from nnunet_nacl.evaluation.output_folder import (
    PAGE_NAME,
    check_output_folder,
    files_of_comparison,
    write_comparison,
)
from nnunet_nacl.evaluation.page import comparison_page
from nnunet_nacl.evaluation.table import Table, write_tables
from nnunet_nacl.evaluation.tables import comparison_tables
from nnunet_nacl.quality.bad_limits import check_bad, read_bad
from nnunet_nacl.reports.rendering import write_page
from nnunet_nacl.settings import BadSpec


@python_function
def compare(
    methods: Sequence[str | ComparedMethod],
    *,
    datasets: Sequence[str | int] = (),
    configuration: str = "",
    plans: str = "nnUNetPlans",
    folds: Sequence[str | int] | None = None,
    labels: str | PathLike | None = None,
    dataset_json: str | PathLike | None = None,
    plans_json: str | PathLike | None = None,
    unranked: Sequence[str] = (),
    bad: BadSpec | None = None,
    structures: Sequence[str] | None = None,
    findings: Sequence[str] | None = None,
    groups: str | None = None,
    allow_missing: bool = False,
    allow_training_cases: bool = False,
    n_bootstrap: int = 10_000,
    seed: int = 0,
    output: str | PathLike | None = None,
    num_processes: int = 1,
    trust_checkpoint: bool = False,
) -> ComparisonResult:
    """Compare methods on the same cases: how well they segment, and how far their confidence can be
    trusted.

    The first method is the reference; tests and intervals show how the others differ from it. What
    was not measured yet is measured first, and kept in ``records/`` beside the predictions. Nothing
    is printed; progress bars go to stderr.

    Args:
        methods: At least two of these, as texts: a trainer's name or a model's folder,
            TRAINER__PLANS__CONFIGURATION, of which the validation cases are compared, either with
            ``+calibrated`` behind it for what its map makes of them; or a folder of predictions
            with their probabilities. ``LABEL=`` before any names it in tables.
        datasets: Names or numbers of the data sets, for models; for folders of predictions at most
            one.
        configuration: Such as 3d_fullres, for trainers.
        plans: Name of the plans, for trainers.
        folds: Of models; None: all that are present for all. ``["all"]`` is nnU-Net's fold_all.
        labels: Folder with the ground truth of folders of predictions; None: nnU-Net's own.
        dataset_json: dataset.json of folders of predictions; None: in these or up to two levels
            above.
        plans_json: plans.json, likewise.
        unranked: Labels of methods that are shown, but not tested.
        bad: The Dice below which a structure, and so its case, is bad: one of all structures, or by
            name.
        structures: Names of those that count for ``bad``; None: all, or those that it names.
        findings: Names of the structures whose connected components, such as lesions, are compared,
            too; an empty list: all; None: those that have several in the truth of some case.
        groups: Patient of each case: a .json file ``{"case": "patient"}``, or a regular expression
            whose first group, or whole match, in a case's name is the patient; None: as the models'
            maps say, else each case its own.
        allow_missing: Compare, with a note, the folds and cases that all have.
        allow_training_cases: Compare, with a note, cases that networks were trained on.
        n_bootstrap: Samples of the bootstrap.
        seed: Of its random numbers.
        output: Folder for :meth:`ComparisonResult.write`; that it may write there is checked before
            the work.
        num_processes: Cases that are measured at the same time.
        trust_checkpoint: Call what plans.json names, which can run code.

    Returns:
        The numbers of each data set; :meth:`ComparisonResult.write` writes tables, figures and a
        page.

    Raises:
        UserError: What was given does not fit or cannot be read, folds or cases are missing, or
            methods cannot be compared.

    Examples:
        >>> result = compare(["A=" + predictions, "B=" + other_predictions], labels=labels)
        >>> [method.label for method in result.comparisons[0].methods]
        ['A', 'B']
        >>> means = result.means  # a row for each data set and method
        >>> means["ECE:predicted"].between(0, 1).tolist()
        [True, True]
        >>> set(result.statistics.verdict)  # three cases are too few for a test
        {'untested'}
    """
    compared = [
        method if isinstance(method, ComparedMethod) else read_method(method) for method in methods
    ]
    options = ComparisonOptions(
        plans=plans,
        configuration=configuration,
        folds=None if folds is None else [str(fold) for fold in folds],
        references=_path(labels),
        dataset_json=_path(dataset_json),
        plans_json=_path(plans_json),
        allow_missing=allow_missing,
        allow_training_cases=allow_training_cases,
        groups=groups,
        n_bootstrap=n_bootstrap,
        seed=seed,
        num_processes=num_processes,
    )
    _check_arguments(compared, datasets, options)
    check_bad(bad, structures=structures)
    compared = label_methods(compared, unranked)

    located = _locate_data_sets(compared, datasets, options)
    folder = _path(output)
    if folder is not None:
        check_output_folder(folder, located)
    located = [_choose_structures(comparison, bad, structures, findings) for comparison in located]
    return ComparisonResult([align(comparison) for comparison in located], folder)


@dataclass(frozen=True)
class ComparisonFiles:
    """What :meth:`ComparisonResult.write` has written.

    Attributes:
        folder: Where it lies.
        document: comparison.json.
        num_tables: How many tables there are in ``tables/``.
        num_figures: How many figures in ``figures/``.
        page: report.html; None where it could not be made.
        why_no_page: Why not; None where it was.
    """

    folder: Path
    document: Path
    num_tables: int
    num_figures: int
    page: Path | None
    why_no_page: str | None


@dataclass(frozen=True, eq=False)
class ComparisonResult:
    """What :func:`compare` has found.

    Attributes:
        comparisons: Of each data set the methods, cases, values, means and tests.
        output: Folder that was named for :meth:`write`; None where none was.
    """

    comparisons: Sequence[Comparison]
    output: Path | None = None

    @cached_property
    def headlines(self) -> list[Headline]:
        """What the tests show of each data set: leading differences, and counts of all."""
        return make_headlines(self.comparisons)

    @cached_property
    def tables(self) -> list[Table]:
        """What is shown: overlap, calibration, tests, predicted Dice and so on, with captions."""
        return comparison_tables(self.comparisons)

    @property
    def values(self) -> pd.DataFrame:
        """A row for each data set and case; of each column and method (``[column][name]``) its
        value."""
        return pd.concat(
            {comparison.name: comparison.values for comparison in self.comparisons},
            names=["dataset"],
        )

    @property
    def means(self) -> pd.DataFrame:
        """A row for each data set and method, and a column for each value: its mean over cases."""
        return pd.concat(
            {comparison.name: comparison.means for comparison in self.comparisons},
            names=["dataset"],
        )

    @property
    def statistics(self) -> pd.DataFrame:
        """A row for each tested difference to the first method, as comparison.json has them."""
        return pd.concat(
            [comparison.statistics for comparison in self.comparisons], ignore_index=True
        )

    @property
    def notes(self) -> list[str]:
        """Caveats, in sentences."""
        return [note for comparison in self.comparisons for note in comparison.notes]

    def write(self, output: str | PathLike | None = None, *, command: str = "") -> ComparisonFiles:
        """Write tables (CSV), figures, comparison.json and report.html; files of an earlier
        comparison go.

        A page that cannot be made costs itself alone.

        Args:
            output: The folder; None: that which was given to :func:`compare`.
            command: What made the comparison, for comparison.json.

        Raises:
            UserError: There is no folder, it holds files of others, or a file cannot be written.
        """
        from nnunet_nacl.evaluation.figures import write_figures  # which loads Matplotlib

        folder = self.output
        if output is not None:
            folder = Path(output)
            check_output_folder(folder, self.comparisons)
        if folder is None:
            raise UserError("give output, the folder for the comparison.")
        files = files_of_comparison(folder)
        tables = write_tables(self.tables, files, self.notes)
        figures = write_figures(self.comparisons, files)
        document = comparison_to_json(
            self.comparisons, tables, figures, files.written, command=command
        )
        path = write_comparison(document, files)
        page = folder / PAGE_NAME
        make_page = partial(comparison_page, document, self.headlines, self.tables, folder)
        why_no_page = write_page(page, make_page)
        return ComparisonFiles(
            folder=folder,
            document=path,
            num_tables=len(tables),
            num_figures=len(figures),
            page=page if why_no_page is None else None,
            why_no_page=why_no_page,
        )


def _path(given: str | PathLike | None) -> Path | None:
    return None if given is None else Path(given)


def _check_arguments(
    methods: Sequence[ComparedMethod], datasets: Sequence[str | int], options: ComparisonOptions
) -> None:
    """UserError for what can be wrong with the arguments alone."""
    has_model = any(method.is_model for method in methods)
    has_folder = any(not method.is_model for method in methods)
    folds = options.folds or ()
    files_of_folders = (options.references, options.dataset_json, options.plans_json)
    if has_model and not (datasets and options.configuration):
        raise UserError(
            "[[methods:models]] needs [[datasets]] and [[configuration]], such as [[datasets=4]]"
            " [[configuration=3d_fullres]]."
        )
    if has_folder and len(datasets) > 1:
        raise UserError(
            "[[methods:folders]] holds the cases of one data set; give one [[datasets]] with it."
        )
    if not has_folder and any(files_of_folders):
        raise UserError(
            "[[labels]], [[dataset_json]] and [[plans_json]] belong to predictions given"
            " with [[methods:folders]]; the models of [[methods:models]] have"
            " theirs."
        )
    if folds and not has_model:
        raise UserError(
            "[[folds]] chooses folds of [[methods:models]]; a folder given with"
            " [[methods:folders]] is compared as a whole."
        )
    if "all" in folds and len(folds) > 1:
        raise UserError(
            "[[folds]] all is nnU-Net's fold_all, whose cases lie in the other folds too;"
            " give it alone."
        )
    read_groups(options.groups, ())


def _locate_data_sets(
    methods: Sequence[ComparedMethod], datasets: Sequence[str | int], options: ComparisonOptions
) -> list[LocatedComparison]:
    """Where the cases of each data set lie; without names, those of the folders of predictions.

    Raises:
        UserError: Two names are of one data set, or folds or cases are missing.
    """
    if not datasets:
        return [locate(None, methods, options)]
    located = [locate(str(dataset), methods, options) for dataset in datasets]
    names = dict.fromkeys(comparison.name for comparison in located)
    if len(names) < len(located):
        raise UserError(
            f"[[datasets]] names one of {', '.join(names)} twice; name each data set once."
        )
    return located


def _choose_structures(
    comparison: LocatedComparison,
    bad: BadSpec | None,
    structures: Sequence[str] | None,
    findings: Sequence[str] | None,
) -> LocatedComparison:
    """With the structures that may be bad, and those whose components are compared.

    Arguments as for :func:`compare`.
    """
    labels = comparison.methods[0].first.labels
    if bad is not None:
        comparison = replace(comparison, bad=read_bad(bad, labels.structures, structures))
    if findings is not None:
        comparison = replace(comparison, findings=read_findings(labels, findings))
    return comparison
