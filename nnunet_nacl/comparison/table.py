"""A table of a comparison: its texts, marks and files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from nnunet_nacl.cases.ownership import OwnedFiles
from nnunet_nacl.comparison.comparison_report import ReportedTable
from nnunet_nacl.comparison.file_names import file_of_table
from nnunet_nacl.utilities.csv_text import to_csv_text
from nnunet_nacl.utilities.files import write_atomically
from nnunet_nacl.utilities.tables import text_of

_MOST_ROWS = 40  # on a terminal


@dataclass(frozen=True, eq=False)
class Table:
    """A table of a comparison.

    Attributes:
        id: Name of its files.
        title: Its title.
        caption: Sentences below it.
        values: Texts, and numbers in full precision.
        texts: As they are shown.
        better: ``lower`` or ``higher``, of columns with marks.
        unranked: Values of the column ``method`` whose rows cannot be best.
        dataset: That it is about; None if it is about several.
        csv: What its file holds, where that is more than the table.
    """

    id: str
    title: str
    caption: str
    values: pd.DataFrame
    texts: pd.DataFrame
    better: Mapping[str, str] = field(default_factory=dict)
    unranked: Collection[str] = ()
    dataset: str | None = None
    csv: pd.DataFrame | None = None

    @property
    def numeric(self) -> list[int]:
        """Which columns hold numbers; the columns left of the first of them name the row."""
        return [i for i, kind in enumerate(self.values.dtypes) if is_numeric_dtype(kind)]

    @cached_property
    def marks(self) -> pd.DataFrame:
        """``best``, ``second`` or nothing for each cell.

        What is rounded to the same text counts as equal: a reader sees no difference. Where all are
        equal nothing is marked; of two methods only the best; where two or more are best, the next
        is no second. Where two columns name a row, rows that share the first name are marked
        together.
        """
        marks = pd.DataFrame("", self.values.index, self.values.columns)
        groups = self.values.iloc[:, 0] if self.numeric[0] > 1 else pd.Series(0, self.values.index)
        is_ranked = ~self.values["method"].isin(self.unranked)
        for column, better in self.better.items():
            as_shown = pd.to_numeric(self.texts.loc[is_ranked, column], errors="coerce")
            for _, shown in as_shown.groupby(groups):
                rank = shown.rank(method="dense", ascending=better == "lower")
                if not rank.max() > 1:  # all are equal, or there is none
                    continue
                best = rank.index[rank == 1]
                marks.loc[best, column] = "best"
                if len(rank) > 2 and len(best) == 1:
                    marks.loc[rank.index[rank == 2], column] = "second"
        return marks

    def to_text(self) -> str:
        """For a terminal, the first rows; ``*`` follows the best and ``+`` the second."""
        has_marks = bool(self.better)
        texts = self.texts.copy()
        if has_marks:
            signs = {"": "  ", "best": " *", "second": " +"}
            for i in self.numeric:
                texts.isetitem(i, texts.iloc[:, i] + self.marks.iloc[:, i].map(signs))
        heading = self.title
        if has_marks:
            heading += "   (* best, + second)"
        lines = [heading, text_of(texts[:_MOST_ROWS], self.numeric[0])]
        more = len(texts) - _MOST_ROWS
        if more > 0:
            lines.append(f"... and {more} rows more in {file_of_table(self.id)}")
        return "\n".join(lines)

    def to_csv(self, notes: Sequence[str] = ()) -> str:
        """In full precision.

        Notes stand in a last column, in every row, so that no row loses them when it is moved.
        """
        frame = self.values if self.csv is None else self.csv
        if notes:
            frame = frame.assign(note=" ".join(notes))
        return to_csv_text(list(frame), frame.itertuples(index=False, name=None))

    def rows(self) -> list[list[tuple[str, Any, str]]]:
        """Of each cell its text, its value (None for texts and what is undefined), and its mark."""
        numbers = self.values.apply(pd.to_numeric, errors="coerce").astype(object)
        numbers = numbers.where(numbers.notna(), None)
        rows = []
        for texts, values, marks in zip(
            self.texts.to_numpy(), numbers.to_numpy(), self.marks.to_numpy()
        ):
            rows.append(list(zip(texts.tolist(), values.tolist(), marks.tolist())))
        return rows


def write_tables(
    tables: Sequence[Table], files: OwnedFiles, notes: Sequence[str] = ()
) -> list[ReportedTable]:
    """Write ``tables/<id>.csv`` of each; what comparison.json says of them."""
    entries = []
    for table in tables:
        file_name = file_of_table(table.id)
        with files.staging(file_name) as work:
            write_atomically(work / Path(file_name).name, table.to_csv(notes))
        entry = ReportedTable(
            id=table.id,
            dataset=table.dataset,
            title=table.title,
            caption=table.caption,
            files=[file_name],
        )
        entries.append(entry)
    return entries
