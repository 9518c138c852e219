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
from nnunet_nacl.comparison.alignment import align
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.comparison.comparison_report import comparison_to_json
from nnunet_nacl.comparison.headline import Headline, make_headlines
from nnunet_nacl.comparison.located import LocatedComparison, data_set_of, locate
from nnunet_nacl.comparison.methods import (
    ComparedMethod,
    label_methods,
    read_method,
)
from nnunet_nacl.comparison.output_folder import (
    PAGE_NAME,
    check_output_folder,
    files_of_comparison,
    write_comparison,
)
from nnunet_nacl.comparison.page import comparison_page
from nnunet_nacl.comparison.structure_metrics import read_findings
from nnunet_nacl.comparison.table import Table, write_tables
from nnunet_nacl.comparison.tables import comparison_tables
from nnunet_nacl.estimators.bad_limits import check_bad, read_bad
from nnunet_nacl.nnunet.trust import trusting
from nnunet_nacl.settings import BadSpec, ComparisonSettings, settings_of
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.rendering import write_page


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
            TRAINER__PLANS__CONFIGURATION, of which the validation cases are compared; with
            ``+tuned`` behind it its tuned networks, with ``+calibrated`` what the map makes of
            them; or a folder of predictions with their probabilities. ``LABEL=`` before any names
            it in tables.
        datasets, configuration, plans, folds, labels, dataset_json, plans_json, unranked, bad,
            structures, findings, groups, allow_missing, allow_training_cases, n_bootstrap, seed,
            num_processes: How what is compared is found and measured, see
            :class:`~nnunet_nacl.settings.ComparisonSettings`.
        output: Folder for :meth:`ComparisonResult.write`; that it may write there is checked before
            the work.
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
        >>> set(result.statistics.verdict)  # both folders hold the same
        {'equal'}
    """
    options = settings_of(ComparisonSettings, locals())
    compared = [
        method if isinstance(method, ComparedMethod) else read_method(method) for method in methods
    ]
    with trusting(trust_checkpoint):
        return compare_methods(compared, options, None if output is None else Path(output))


def compare_methods(
    methods: Sequence[ComparedMethod], options: ComparisonSettings, output: Path | None
) -> ComparisonResult:
    """The recipe of :func:`compare`, of methods that are read and with its settings collected."""
    options = _with_those_of_folders(methods, options)
    _check_arguments(methods, options)
    check_bad(options.bad, structures=options.structures)
    labelled = label_methods(methods, options.unranked)
    located = _locate_data_sets(labelled, options)
    if output is not None:
        check_output_folder(output, located)
    chosen = [_choose_structures(comparison) for comparison in located]
    return ComparisonResult([align(comparison) for comparison in chosen], output)


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
        from nnunet_nacl.comparison.figures import write_figures  # which loads Matplotlib

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


def _with_those_of_folders(
    methods: Sequence[ComparedMethod], options: ComparisonSettings
) -> ComparisonSettings:
    """With data set, configuration and plans of the first model where all are given as folders, as
    far as they are not named."""
    paths = [method.path for method in methods if method.is_model]
    if not paths or None in paths:
        return options
    folder = Path(paths[0] or "")
    _, plans, configuration = folder.resolve().name.split("__")
    if not options.configuration:
        options = replace(options, configuration=configuration, plans=plans)
    if not options.datasets:
        options = replace(options, datasets=[data_set_of(folder)])
    return options


def _check_arguments(methods: Sequence[ComparedMethod], options: ComparisonSettings) -> None:
    """UserError for what can be wrong with the arguments alone."""
    has_model = any(method.is_model for method in methods)
    has_folder = any(not method.is_model for method in methods)
    folds = options.folds or ()
    files_of_folders = (options.labels, options.dataset_json, options.plans_json)
    if has_model and not (options.datasets and options.configuration):
        raise UserError(
            "a trainer of [[methods:models]] is found by [[datasets]] and [[configuration]]: add,"
            " for example, [[datasets=4]] [[configuration=3d_fullres]], or give the folders of the"
            " models."
        )
    if has_folder and len(options.datasets) > 1:
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
    methods: Sequence[ComparedMethod], options: ComparisonSettings
) -> list[LocatedComparison]:
    """Where the cases of each data set lie; without names, those of the folders of predictions.

    Raises:
        UserError: Two names are of one data set, or folds or cases are missing.
    """
    if not options.datasets:
        return [locate(None, methods, options)]
    located = [locate(str(dataset), methods, options) for dataset in options.datasets]
    names = dict.fromkeys(comparison.name for comparison in located)
    if len(names) < len(located):
        raise UserError(
            f"[[datasets]] names one of {', '.join(names)} twice; name each data set once."
        )
    return located


def _choose_structures(comparison: LocatedComparison) -> LocatedComparison:
    """With the structures that may be bad, and those whose components are compared."""
    options = comparison.options
    labels = comparison.methods[0].first.labels
    if options.bad is not None:
        bad = read_bad(options.bad, labels.structures, options.structures)
        comparison = replace(comparison, bad=bad)
    if options.findings is not None:
        comparison = replace(comparison, findings=read_findings(labels, options.findings))
    return comparison
