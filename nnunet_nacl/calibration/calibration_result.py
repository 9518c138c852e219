"""What `calibrate` has fitted and learned, and the files that it writes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.map_parts import MapQuality
from nnunet_nacl.estimators.flags import Flags
from nnunet_nacl.estimators.learned_quality import LearnedQuality
from nnunet_nacl.utilities.errors import UserError


@dataclass(frozen=True)
class CalibrationFiles:
    """What :meth:`CalibrationResult.write` has written.

    Attributes:
        calibration_map: The map.
        figure: What flags would cost; None where nothing was learned of it, or it could not be
            written.
        why_no_figure: Why it could not be written; None where it was, or there is none.
    """

    calibration_map: Path
    figure: Path | None = None
    why_no_figure: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class CalibrationResult:
    """What :func:`calibrate` has fitted and learned.

    Attributes:
        calibration_map: The map with what it changes, what it was learned from, and its guarantees.
        bad: By nnU-Net's key of each structure that counts, the Dice below which it is bad; None:
            nothing is bad.
        output: Where :meth:`write` writes the map.
    """

    calibration_map: CalibrationMap
    bad: Mapping[str, float] | None
    output: Path

    @cached_property
    def effect(self) -> pd.DataFrame:
        """What the map changes on cases that its fit has not seen, a row for each value, such as
        ``NLL all``.

        Columns: ``before``, ``after`` and ``difference``, the ends ``low`` and ``high`` of the
        difference's 95 % bootstrap interval over patients, and ``n``, the cases where the value is
        defined.
        """
        rows = {}
        for name, change in self.calibration_map.fitted.effect.items():
            difference = change.difference
            rows[name] = {
                "before": change.before.mean,
                "after": change.after.mean,
                "difference": difference.mean,
                "low": difference.low,
                "high": difference.high,
                "n": change.n,
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    @cached_property
    def flags(self) -> Flags | None:
        """What flags of scans that are bad by ``bad`` aim at, and would cost; None without it.

        Where too few patients have such a scan none is flagged, and ``why_not`` of it says why.
        """
        learned = self.calibration_map.learned
        if learned is None or not self.bad:
            return None
        return Flags.of(learned.scores, self.bad, self.calibration_map.names)

    @property
    def notes(self) -> list[str]:
        """Caveats, in sentences."""
        return self.calibration_map.origin.notes

    @property
    def failed(self) -> dict[str, str]:
        """By name, why a case could not be used."""
        return self.calibration_map.origin.problems

    def write(self) -> CalibrationFiles:
        """Write the map, and beside it a figure of what flags would cost.

        A figure that cannot be written costs itself alone.

        Raises:
            UserError: The map cannot be written.
        """
        self.calibration_map.save(self.output)
        learned = self.calibration_map.learned
        if learned is None:
            return CalibrationFiles(self.output)
        try:
            figure = self._draw_flags(learned)
        except UserError as error:  # of a full disk: the map is whole, and the caller tells it
            return CalibrationFiles(self.output, why_no_figure=error.message)
        return CalibrationFiles(self.output, figure=figure)

    def _draw_flags(self, learned: LearnedQuality) -> Path:
        """Draw what flags would cost, and what sensitive labels would; the figure's file."""
        from nnunet_nacl.calibration.flag_figure import draw_flags  # which loads Matplotlib

        curves = None
        if self.flags is not None and self.bad is not None:
            curves = {self.flags.called_bad: self.bad}
        quality = self.calibration_map.quality or MapQuality()
        recall = {}
        for key, recall_of_structure in quality.recall.items():
            recall[self.calibration_map.names[key]] = recall_of_structure
        return draw_flags(learned.scores, recall, self.output.with_suffix(".png"), curves)
