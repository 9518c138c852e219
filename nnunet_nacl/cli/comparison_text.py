"""The text that `nnunet_nacl compare` prints; comparison.json has every number."""

from __future__ import annotations

import textwrap

from nnunet_nacl.calibration.quality_texts import WITHOUT_BAD
from nnunet_nacl.comparison.compare import ComparisonResult
from nnunet_nacl.comparison.file_names import STATISTICS, file_of_table
from nnunet_nacl.comparison.headline import (
    Headline,
    LeadingDifference,
    MethodHeadline,
    VerdictCounts,
)
from nnunet_nacl.metrics.statistics import VERDICT_TEXTS
from nnunet_nacl.utilities.tables import text_of

_WIDTH = 80


def comparison_text(result: ComparisonResult) -> str:
    """All tables but those of the tests, what the tests show, and the notes."""
    tables = [table.to_text() for table in result.tables if not table.id.startswith(STATISTICS)]
    parts = ["\n\n".join(tables)]
    parts += [f"\n{headline_text(headline)}" for headline in result.headlines]
    if all(comparison.bad is None for comparison in result.comparisons):
        parts.append(f"\n{WITHOUT_BAD}")
    parts += [f"\nNOTE: {note}" for note in result.notes]
    return "\n".join(parts)


def headline_text(headline: Headline) -> str:
    """What the tests of a data set show, in lines of 80 characters."""
    lines = [_wrapped("", f"What got better, what worse: {headline.where}")]
    for method in headline.methods:
        lines += ["", *_lines_of_method(method, headline.reference)]
    lines.append("")
    lines += [_wrapped("", remark) for remark in headline.remarks]
    lines.append(_wrapped("", f"Every test: {file_of_table(headline.table_id)}"))
    return "\n".join(lines)


def _lines_of_method(method: MethodHeadline, reference: str) -> list[str]:
    lines = [_wrapped("", f"{method.label} (reference: {reference}):")]
    width = max(len(difference.title) for difference in method.leading)
    for difference in method.leading:
        lines.append(_wrapped(f"  {difference.title:<{width}}  ", _difference_text(difference)))
    if method.counts:  # none where every value is that of the reference
        rows = [_counts_row(counts) for counts in method.counts]
        lines.append(textwrap.indent(text_of(rows), "  "))
    if method.worse:
        lines.append(_wrapped("  ", method.worse))
    return lines


def _difference_text(difference: LeadingDifference) -> str:
    verdict = difference.verdict_text
    if difference.remark:
        verdict += f" ({difference.remark})"
    means = f"{difference.mean_reference} -> {difference.mean}"
    return f"{verdict}: {means} ({difference.difference})"


def _counts_row(counts: VerdictCounts) -> dict[str, str | int]:
    row: dict[str, str | int] = {"tests": counts.kind, "": counts.n_tests}
    for verdict in ("better", "worse"):
        row[VERDICT_TEXTS[verdict]] = counts.by_verdict[verdict]
    row[VERDICT_TEXTS["none"]] = counts.no_difference_text
    if counts.by_verdict["untested"]:
        row[VERDICT_TEXTS["untested"]] = counts.by_verdict["untested"]
    return row


def _wrapped(beginning: str, text: str) -> str:
    """The text behind its beginning, under which its further lines begin, too."""
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=beginning,
        subsequent_indent=" " * (len(beginning) or 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
