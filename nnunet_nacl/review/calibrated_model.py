"""A trained model with its calibration map: what the map says of the segmentations that its networks make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.calibrate.map_file import MAP_FILE, check_networks
from nnunet_nacl.errors import UserError
from nnunet_nacl.nnunet.locate import calibrate_command
from nnunet_nacl.nnunet.profile import TrainingRange
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from nnunet_nacl.review.predicted_quality import QualityOfMap, open_map


@dataclass(frozen=True)
class CalibratedModel(TrainedModel):
    """Can be pickled, and holds no weights. What is said of the map is None, or empty, where there is none.

    Attributes:
        calibration: The map that the probabilities are taken through.
        quality: What the map has learned about such segmentations; None also if it has learned nothing.
        map_path: The map's file.
        record: What that file holds.
        missing: What the user should know is missing, each with the remedy.
    """

    calibration: LogOddsMap | None = None
    quality: QualityOfMap | None = None
    map_path: Path | None = None
    record: CalibrationMap | None = None
    missing: tuple[str, ...] = ()

    def with_map(self, calibration_map: Path | None = None) -> CalibratedModel:
        """The model with its map; without it, and why, where the one in the model's folder is of other networks.

        Args:
            calibration_map: Of this model; None looks for calibration_map.json in the folder.

        Raises:
            UserError: The map that was given cannot be used; or the one in the folder is damaged, or of another
                version, which is not taken for none.
        """
        path = calibration_map or self.folder / MAP_FILE
        if not calibration_map and not path.is_file():
            none = (
                "not calibrated (no calibration_map.json): confidences are the network's own and no Dice is predicted. "
                f"To have both: `{calibrate_command(self.folder, self.configuration)}`"
            )
            return replace(self, missing=(none,))
        record = CalibrationMap.load(path)
        try:
            check_networks(path, record, dict(zip(self.folds, self.hashes)))
            calibration, quality, why_not = open_map(path, self.opened)
        except UserError as error:
            if calibration_map:
                raise
            return replace(self, missing=(f"not calibrated: {error}",))
        missing = (f"no Dice is predicted: {why_not}",) if why_not else ()
        place = path.resolve()
        return replace(self, calibration=calibration, quality=quality, map_path=place, record=record, missing=missing)

    def other_inference(self, step_size: float, mirroring: bool) -> list[str]:
        """A note where the model is used otherwise than when the map was fitted."""
        if self.calibration is None or self.record is None:
            return []
        used = {"step_size": step_size, "mirroring": mirroring}
        fitted = self.record.origin.inference.items()
        other = [f"{name} {value}, here {used[name]}" for name, value in fitted if used[name] != value]
        return [f"The calibration was fitted with {' and '.join(other)}: its numbers hold less."] if other else []

    @cached_property
    def training(self) -> TrainingRange:
        """Spacing and size of the images of the training; of the calibration scans where those are not known."""
        profiles = self.quality.of_map.profiles if self.quality else None
        return TrainingRange.find(self.folder, self.opened.plans, profiles)
