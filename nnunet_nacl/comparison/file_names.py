"""Where the tables and figures of a comparison lie beside comparison.json."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_nacl.comparison.located import LocatedComparison

TABLES = "tables"
"""Folder of the tables."""
FIGURES = "figures"
"""Folder of the figures."""
OVERVIEW = "overview"
"""Id of the table that shows several data sets."""
STATISTICS = "statistics"
"""Kind of the table of all tests."""
DIFFERENCES = "differences"
"""How the id of the figure begins that the page opens with."""
RELIABILITY_MASKS = ("foreground", "predicted", "all")
"""Masks that have a figure of their reliability."""
_TABLE_KINDS = ("segmentation", "calibration", STATISTICS, "quality", "workload", "detected")
_FIGURE_ENDINGS = ("png", "svg")


def template_of_names(comparisons: Sequence[LocatedComparison]) -> str:
    """Template of the names of tables and figures; of several data sets it names theirs, too."""
    return "{kind}_{name}" if len(comparisons) > 1 else "{kind}"


def kind_of_reliability(mask: str) -> str:
    """Kind of the figure that shows the reliability on a mask."""
    return f"reliability_{mask}"


def kind_of_predicted_dice(method_number: int) -> str:
    """Kind of the figure that shows the predicted Dice of a method; the first has the number 1."""
    return f"predicted_dice_{method_number}"


def file_of_table(table_id: str) -> str:
    """Where a table lies."""
    return f"{TABLES}/{table_id}.csv"


def files_of_figure(figure_id: str) -> list[str]:
    """Where the two files of a figure lie: PNG, then SVG."""
    return [f"{FIGURES}/{figure_id}.{ending}" for ending in _FIGURE_ENDINGS]


def files_of_tables(comparisons: Sequence[LocatedComparison]) -> list[str]:
    """Where tables may be written of comparisons, of which only the names are known yet."""
    template = template_of_names(comparisons)
    file_names = [file_of_table(OVERVIEW)]
    for comparison in comparisons:
        for kind in _TABLE_KINDS:
            file_names.append(file_of_table(template.format(kind=kind, name=comparison.name)))
    return file_names


def files_of_figures(comparisons: Sequence[LocatedComparison]) -> list[str]:
    """Where figures may be written of comparisons, of which only names and methods are known
    yet."""
    template = template_of_names(comparisons)
    file_names = []
    for comparison in comparisons:
        kinds = [DIFFERENCES]
        kinds += [kind_of_reliability(mask) for mask in RELIABILITY_MASKS]
        for method_number in range(1, len(comparison.methods) + 1):
            kinds.append(kind_of_predicted_dice(method_number))
        for kind in kinds:
            file_names += files_of_figure(template.format(kind=kind, name=comparison.name))
    return file_names
