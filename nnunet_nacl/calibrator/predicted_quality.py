"""Applies what a calibration map has learned about Dice and volumes to new predictions, and checks that it may.

A map may be asked only about what it was learned for: probabilities that it calibrated, once. Saved probabilities do
not tell who made them, so a folder must say that it is calibrated (``calibration_applied.json``, of the same map).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.calibrator.calibration_map import CalibrationMap
from nnunet_nacl.calibrator.map_file import APPLIED_FILE, MAP_FILE, check_networks, check_structures, map_of
from nnunet_nacl.calibrator.map_parts import MapQuality
from nnunet_nacl.cases.record import RECORDS, find_record
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import checksum
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.nnunet.places import calibrate_command, fold_of
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.quality.learned_quality import SINGLE_NETWORKS, LearnedQuality
from nnunet_nacl.quality.presence import LearnedPresence
from nnunet_nacl.quality.recall import SensitiveAim


@dataclass(frozen=True, kw_only=True)
class QualityOfMap:
    """The learned part of a map, for one folder of predictions.

    Attributes:
        path: The map.
        record: What its file holds; ``of_map`` is all that it learned, and ``learned`` what Dice and volumes will be.
        as_network: Whether the cases' probabilities are known as the network gave them: presence is learned from those,
            and not known of a folder that was calibrated before.
    """

    path: Path
    record: CalibrationMap
    of_map: MapQuality
    learned: LearnedQuality
    as_network: bool = True

    @property
    def presence(self) -> LearnedPresence | None:
        """What was learned about which structures a scan has; None where nothing was, or it may not be asked."""
        return self.of_map.presence if self.as_network else None

    @property
    def torn(self) -> list[str]:
        """nnU-Net's keys of the structures that can be absent, or are in pieces in most calibration scans."""
        return self.of_map.presence.listed if self.of_map.presence else []

    @property
    def listed(self) -> list[str]:
        """nnU-Net's keys of the structures whose components are findings: those that can be absent from a scan.

        Pieces alone make no lesion: cerebrospinal fluid is in all scans, in hundreds.
        """
        return [key for key in self.torn if key not in self.learned.scores.always]

    def sensitive(self, recall: float, structures: Mapping[str, str], several: bool) -> SensitiveAim:
        """What labels of scans, perhaps of ``several`` networks, aim at; UserError where none can be had."""
        if not self.as_network:
            raise UserError("-recall: these were calibrated before; give the predictions as the network made them.")
        return SensitiveAim.of(self.of_map.recall, structures, recall, self.learned.as_deployed or not several)

    def unlike(self, profile: Sequence[float], level: float) -> tuple[float, str]:
        """How probable an image with such a profile is; and, where that is at most the level, what is odd about it."""
        scans, values = self.of_map.profiles, np.array(profile, float)
        if scans is None or len(values) != len(scans.names) or scans.n_patients < 2:
            return math.nan, ""
        p = scans.p_value(values)
        if p > level + 1e-9 or scans.why_not(level):
            return p, ""
        return p, f"unlike: {scans.stands_out(values)}"

    def caveats(self, cases: Iterable[str], *, several: bool = True) -> list[str]:
        """What must be said beside predictions of cases, which perhaps ``several`` networks predicted together."""
        notes = [f"The map learned {SINGLE_NETWORKS}."] if several and not self.learned.as_deployed else []
        if shared := sorted(self.record.fitted.part_of.keys() & set(cases)):
            notes.append(
                f"The map learned from cases of the same names ({len(shared)}, {shared[0]} first): if they are the "
                "same, Dice is predicted better here than it will be for new ones."
            )
        return notes


def open_map(path: Path, folder: PredictionFolder) -> tuple[LogOddsMap | None, QualityOfMap | None, str]:
    """What a map does to a folder's predictions, None if it calibrated them before; what it has learned, or why not.

    Raises:
        UserError: The map is of other structures; the predictions were calibrated by another one, or by this one,
            which has learned nothing: then it has nothing to say of them.
    """
    record, calibrated = CalibrationMap.load(path), (folder.folder / APPLIED_FILE).is_file()
    check_structures(path, record, folder.labels)
    if calibrated and map_of(folder.folder).get("map_sha256") != checksum(path):
        raise UserError(f"{folder.folder} was calibrated by another map than {path}; give that one.")
    calibration = None if calibrated else record.calibration()
    if record.quality is not None and record.learned is not None:
        quality = QualityOfMap(
            path=path, record=record, of_map=record.quality, learned=record.learned, as_network=not calibrated
        )
        return calibration, quality, ""
    why = f" ({record.quality.why_not})" if record.quality and record.quality.why_not else ""
    why_not = (
        f"{path} has learned nothing about Dice and volumes{why}; calibrate again, with the probabilities of the "
        "held-out cases."
    )
    if calibrated:
        raise UserError(why_not)
    return calibration, None, why_not


def check_same_networks(path: Path, predictions: PredictionFolder) -> str:
    """A note where it cannot be known that predictions are of the map's networks; UserError where they are of others.

    A fold's validation lies beside its checkpoint, and `nnunet_nacl predict` records the checkpoints; of other folders
    trainer, plans and configuration are compared, as far as they are stated. A folder that a map calibrated before is
    of that map's networks.
    """
    record, folder = CalibrationMap.load(path), predictions.folder.resolve()
    if (folder / APPLIED_FILE).is_file() or record.origin.source == str(folder):
        return ""
    model, networks = _model_of(folder)
    check_networks(path, record, networks)
    if networks and networks.keys() <= record.origin.checkpoint_sha256.keys():
        return ""
    stated = model.split("__") if model else ["", str(predictions.plans.get("plans_name", "")), ""]
    learned = Path(record.origin.source).name.split("__")
    for named, of_map in zip(stated, learned if len(learned) == 3 else ()):
        if named not in ("", of_map):
            raise UserError(f"{path} was learned with {of_map}, {folder} has {named}; give the map of this model.")
    return (
        f"Whether {path} was learned from the networks that predicted {folder} cannot be known from their files: it "
        "holds for no others."
    )


def _model_of(folder: Path) -> tuple[str, dict[str, str]]:
    """Name of the model's folder, and by fold the SHA-256 of the checkpoints that predicted; empty where unknown."""
    if folder.name.startswith("validation") and (fold := fold_of(folder.parent)):
        name, checkpoint = folder.parents[1].name, folder.parent / "checkpoint_final.pth"
        for path in sorted((folder / RECORDS).glob("*.npz")):  # all of a fold are of one checkpoint
            record = find_record(folder / RECORDS, path.stem)
            if record and (digest := record.made_by.get("checkpoint")):
                return name, {fold: str(digest)}
        return name, {fold: checksum(checkpoint)} if checkpoint.is_file() else {}
    with contextlib.suppress(UserError, KeyError, TypeError):  # nnU-Net's own predictions have none
        model = read_dict(folder / "prediction.json")["model"]
        return Path(model["folder"]).name, dict(model["checkpoints_sha256"])
    return "", {}


@dataclass(frozen=True)
class CalibratedModel(TrainedModel):
    """A trained model with its map; what is said of that is None, or empty, where there is none. Can be pickled.

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
        """The model with a map, by default that in its folder; without that, and why, where it is of other networks.

        UserError where a map that was given cannot be used; or the one in the folder is damaged, or of another version,
        which is not taken for none.
        """
        path = calibration_map or self.folder / MAP_FILE
        if not calibration_map and not path.is_file():
            none = (
                "not calibrated (no calibration_map.json): confidences and predicted Dice are the network's own. "
                f"To calibrate them: `{calibrate_command(self.folder)}`"
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
        used, fitted = {"step_size": step_size, "mirroring": mirroring}, self.record.origin.inference.items()
        other = [f"{name} {value}, here {used[name]}" for name, value in fitted if used[name] != value]
        return [f"The calibration was fitted with {' and '.join(other)}: its numbers hold less."] if other else []
