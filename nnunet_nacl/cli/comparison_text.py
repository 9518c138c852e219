"""The text that `nnunet_nacl compare` prints; comparison.json has every number."""

from __future__ import annotations

from nnunet_nacl.commands.compare import ComparisonResult
from nnunet_nacl.evaluation.comparison import ALPHA, Comparison
from nnunet_nacl.reports.quality_texts import WITHOUT_BAD


def comparison_text(result: ComparisonResult) -> str:
    """All tables but those of the tests, of which the clear differences are listed, and the
    notes."""
    tables = [table.to_text() for table in result.tables if not table.id.startswith("statistics")]
    parts = ["\n\n".join(tables)]
    for comparison in result.comparisons:
        parts.append(f"\n{_differences_text(comparison)}")
    if all(comparison.bad is None for comparison in result.comparisons):
        parts.append(f"\n{WITHOUT_BAD}")
    parts += [f"\nNOTE: {note}" for note in result.notes]
    return "\n".join(parts)


def _differences_text(comparison: Comparison) -> str:
    """The differences to the reference that a test shows, a line for each method and verdict."""
    lines = [
        f"{comparison.where}, masks reach {comparison.settings.reach}; p < {ALPHA} after Holm's"
        " correction:"
    ]
    statistics = comparison.statistics
    clear = statistics[~statistics.verdict.isin(["none", "untested"])]
    for (method, verdict), rows in clear.groupby(["trainer", "verdict"], sort=False):
        columns = ", ".join(comparison.columns[column].title for column in rows["column"])
        lines.append(f"  {comparison.labels[method]} {verdict}: {columns}")
    if clear.empty and statistics.verdict.isin(["untested"]).all():
        lines.append("  no test was made")
    elif clear.empty:
        lines.append("  no test shows a difference")
    return "\n".join(lines)
