"""`Calibrator`: a calibration map for one model or folder of predictions, and what it has learned
of them.

A map may be asked only about what it was learned for: probabilities that it calibrated, once. Saved
probabilities do not tell who made them, so a folder must say that it is calibrated
(``calibration_applied.json``, of the same map).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from typing_extensions import Self

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.map_file import (
    APPLIED_FILE,
    MAP_FILE,
    check_networks,
    check_structures,
    map_file_of,
    map_path_of,
    read_applied_map_digest,
)
from nnunet_nacl.calibration.map_parts import MapQuality, UsedMap
from nnunet_nacl.cases.record import find_record
from nnunet_nacl.cases.record_file import RECORDS
from nnunet_nacl.estimators.learned_quality import SINGLE_NETWORKS
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.estimators.presence import LearnedPresence
from nnunet_nacl.estimators.recall import SensitiveAim
from nnunet_nacl.nnunet.folders import fold_of
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.settings import FINAL
from nnunet_nacl.utilities.command_lines import calibrate_command
from nnunet_nacl.utilities.errors import UserError, some
from nnunet_nacl.utilities.files import checksum
from nnunet_nacl.utilities.json_files import encode, read_dict

_HEADLINE = ("NLL predicted", "pooled ECE predicted")
"""Of ``effect``, what other documents repeat."""


@dataclass(frozen=True, eq=False)
class Calibrator:
    """What a calibration map does to the predictions of one model or folder, and what it has
    learned of them.

    Without a map probabilities stay as they are, and nothing is known of Dice. Can be pickled.

    Attributes:
        path: The map's file; None without a map.
        calibration_map: What that file holds; None without a map.
        is_applied: Whether the map has calibrated these predictions before. Then it is not applied
            again, and nothing is known of presence, which is learned from the network's own
            probabilities.
        missing: What is not there, in sentences, each with the remedy: a map, or what one may learn
            of Dice.
        notes: What must be said wherever the map is used.
    """

    path: Path | None = None
    calibration_map: CalibrationMap | None = None
    is_applied: bool = False
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of_model(cls, model: TrainedModel, path: Path | None = None) -> Self:
        """The map of a trained model, by default that in its folder.

        A map in the folder that is of other networks or structures is taken for none, and
        ``missing`` says why.

        Raises:
            UserError: A map that was given cannot be used; or the one in the folder is damaged, or
                of another version, which is not taken for none.
        """
        chosen = path or find_map(model)
        if not chosen.is_file() and path is None:
            other_checkpoint = None if model.checkpoint == FINAL else model.checkpoint
            command = calibrate_command(model.folder, other_checkpoint)
            no_map = (
                f"not calibrated (no {chosen.name}): confidences and predicted Dice are the"
                f" network's own. To calibrate them: `{command}`"
            )
            return cls(missing=(no_map,))
        calibration_map = CalibrationMap.load(chosen)
        try:
            check_networks(chosen, calibration_map, dict(zip(model.folds, model.hashes)))
            check_structures(chosen, calibration_map, model.labels)
        except UserError as error:
            if path is not None:
                raise
            return cls(missing=(f"not calibrated: {error}",))
        calibrator = cls(chosen.resolve(), calibration_map)
        if calibrator.quality.learned is None:
            why = _why_nothing_is_learned(chosen, calibration_map)
            return replace(calibrator, missing=(f"no Dice is predicted: {why}",))
        return calibrator

    @classmethod
    def of_folder(cls, path: Path, predictions: PredictionFolder) -> Self:
        """A map for a folder of predictions, as the network made them or as this map has calibrated
        them.

        Raises:
            UserError: The map is of other networks or structures; or the predictions were
                calibrated by another one, or by this one, which has learned nothing: then it has
                nothing to say of them.
        """
        calibration_map = CalibrationMap.load(path)
        is_applied = (predictions.folder / APPLIED_FILE).is_file()
        notes = check_same_networks(path, calibration_map, predictions)
        check_structures(path, calibration_map, predictions.labels)
        if is_applied and read_applied_map_digest(predictions.folder) != checksum(path):
            raise UserError(
                f"{predictions.folder} was calibrated by another map than {path}; give that one."
            )
        calibrator = cls(path, calibration_map, is_applied, notes=tuple(notes))
        if calibrator.quality.learned is None:
            why = _why_nothing_is_learned(path, calibration_map)
            if is_applied:
                raise UserError(why)
            return replace(calibrator, missing=(why,))
        return calibrator

    @classmethod
    def that_was_applied(cls, predictions: PredictionFolder) -> Self:
        """The map that `nnunet_nacl review -map` calibrated a folder by, if it is still what and
        where it was.

        UserError where it is damaged, or of other structures.
        """
        path = map_path_of(predictions.folder)
        if path is None:
            return cls()
        calibration_map = CalibrationMap.load(path)
        check_structures(path, calibration_map, predictions.labels)
        return cls(path, calibration_map, is_applied=True)

    @property
    def fitted_cases(self) -> set[str]:
        """Names of the cases that the map was fitted to."""
        if self.calibration_map is None:
            return set()
        return set(self.calibration_map.fitted.part_of)

    @cached_property
    def log_odds_map(self) -> LogOddsMap | None:
        """What the probabilities are taken through; None where they stay as they are."""
        if self.calibration_map is None or self.is_applied:
            return None
        return self.calibration_map.calibration()

    @property
    def quality(self) -> MapQuality:
        """What the map has learned; empty where nothing is known of Dice."""
        if self.calibration_map is None or self.calibration_map.learned is None:
            return MapQuality()
        return self.calibration_map.quality or MapQuality()

    @property
    def presence(self) -> LearnedPresence | None:
        """What was learned about which structures a scan has; None where nothing was, or it may not
        be asked."""
        return None if self.is_applied else self.quality.presence

    def sensitive(
        self, recall: float, structures: Mapping[str, str], several: bool
    ) -> SensitiveAim:
        """What sensitive labels (``-recall``) aim at, of scans that perhaps ``several`` networks
        predict.

        UserError where none can be had.
        """
        learned = self.quality.learned
        if learned is None:
            raise UserError(
                f"[[recall]]: nothing is known of what labels miss: {' '.join(self.missing)}"
            )
        if self.is_applied:
            raise UserError(
                "[[recall]]: these were calibrated before; give the predictions as the network made"
                " them."
            )
        is_as_learned = learned.as_deployed or not several
        return SensitiveAim.of(self.quality.recall, structures, recall, is_as_learned)

    def caveats(self, cases: Iterable[str], *, several: bool = True) -> list[str]:
        """What must be said beside predictions of cases, which perhaps ``several`` networks
        predicted together."""
        if self.quality.learned is None:
            return []
        caveats = []
        if several and not self.quality.learned.as_deployed:
            caveats.append(f"The map learned {SINGLE_NETWORKS}.")
        shared = sorted(self.fitted_cases & set(cases))
        if shared:
            caveats.append(
                f"The map learned from cases of the same names ({len(shared)}, {shared[0]} first):"
                " if they are the same, Dice is predicted better here than it will be for new"
                " ones."
            )
        return caveats

    @property
    def uninformative(self) -> list[str]:
        """Which predicted values are no warning: on the calibration cases they were no closer to
        the true ones than the mean of these."""
        if self.quality.learned is None or self.calibration_map is None:
            return []
        names = self.calibration_map.names
        texts = []
        volume_text = "a segmented volume outside its interval is not named"
        for kind, word, unit, consequence in (
            ("dice", "Dice", "", "it orders scans, and says little of how good one is"),
            ("volume", "volume", self.quality.unit, volume_text),
        ):
            checks = self.quality.learned.no_better(kind)
            if not checks:
                continue
            errors = []
            for key, check in checks.items():
                of_mean = f"{check.error_of_constant:.3g} {unit}".strip()
                errors.append(f"{names[key]} (off by {check.error:.3g}, the mean by {of_mean})")
            texts.append(
                f"Predicted {word} was no closer to the true one than the mean of the calibration"
                f" cases: {some(errors)}; {consequence}."
            )
        return texts

    def other_inference(self, inference: Mapping[str, Any]) -> list[str]:
        """A note where networks predict otherwise (``step_size``, ``mirroring``) than when the map
        was fitted."""
        if self.calibration_map is None:
            return []
        differing = [
            f"{name} {value}, here {inference.get(name)}"
            for name, value in self.calibration_map.origin.inference.items()
            if inference.get(name) != value
        ]
        if not differing:
            return []
        return [
            f"The calibration was fitted with {' and '.join(differing)}: its numbers hold less."
        ]

    def used_map(self) -> dict[str, Any] | None:
        """How documents name the map, in JSON values: file, SHA-256, and the little of it that a
        viewer or registry shows."""
        if self.calibration_map is None or self.path is None:
            return None
        fitted = self.calibration_map.fitted
        used: UsedMap = {
            "file": os.path.abspath(self.path),
            "sha256": checksum(self.path),
            "form": self.calibration_map.form,
            "n_cases": len(fitted.part_of),
            "n_patients": len(set(fitted.patients)),
            "effect": {name: fitted.effect[name] for name in _HEADLINE if name in fitted.effect},
            "scope": self.calibration_map.origin.scope,
        }
        return encode(used)


def find_map(model: TrainedModel) -> Path:
    """The map of a model's checkpoint in its folder, whether it is there or not.

    Earlier versions wrote the map of every checkpoint into calibration_map.json: it is that one
    where its networks are these.
    """
    own = model.folder / map_file_of(model.checkpoint)
    of_any = model.folder / MAP_FILE
    if own == of_any or own.is_file() or not of_any.is_file():
        return own
    networks = dict(zip(model.folds, model.hashes))
    known = CalibrationMap.load(of_any).origin.checkpoint_sha256
    return of_any if networks.items() <= known.items() else own


def _why_nothing_is_learned(path: Path, calibration_map: CalibrationMap) -> str:
    why = "" if calibration_map.quality is None else calibration_map.quality.why_not
    in_brackets = f" ({why})" if why else ""
    return (
        f"{path} has learned nothing about Dice and volumes{in_brackets}; calibrate again, with the"
        " probabilities of the held-out cases."
    )


def check_same_networks(
    path: Path, calibration_map: CalibrationMap, predictions: PredictionFolder
) -> list[str]:
    """A note where it cannot be known that predictions are of the map's networks; UserError where
    they are of others.

    A fold's validation lies beside its checkpoint, and `nnunet_nacl predict` writes down the
    checkpoints; of other folders trainer, plans and configuration are compared, as far as they are
    stated. A folder that a map calibrated before is of that map's networks.
    """
    origin = calibration_map.origin
    folder = predictions.folder.resolve()
    if (folder / APPLIED_FILE).is_file() or origin.source == str(folder):
        return []
    model, networks = _find_model_of(folder)
    check_networks(path, calibration_map, networks)
    if networks and networks.keys() <= origin.checkpoint_sha256.keys():
        return []
    # trainer, plans and configuration; empty where they are not stated
    if model:
        stated_names = model.split("__")
    else:
        stated_names = ["", str(predictions.dataset.plans.get("plans_name", "")), ""]
    names_of_map = Path(origin.source).name.split("__")
    if len(names_of_map) == 3:
        for name, of_map in zip(stated_names, names_of_map):
            if name not in ("", of_map):
                raise UserError(
                    f"{path} was learned with {of_map}, {folder} has {name}; give the map of this"
                    " model."
                )
    return [
        f"Whether {path} was learned from the networks that predicted {folder} cannot be known from"
        " their files: it holds for no others."
    ]


def _find_model_of(folder: Path) -> tuple[str, dict[str, str]]:
    """Name of the model's folder, and by fold the SHA-256 of the checkpoints that predicted; empty
    where unknown."""
    fold = fold_of(folder.parent) if folder.name.startswith("validation") else None
    if fold:
        digest = _find_checkpoint_of_validation(folder)
        return folder.parents[1].name, {fold: digest} if digest else {}
    try:
        model_entry = read_dict(folder / "prediction.json")["model"]
        return Path(model_entry["folder"]).name, dict(model_entry["checkpoints_sha256"])
    except (UserError, KeyError, TypeError):  # nnU-Net's own predictions have no such file
        return "", {}


def _find_checkpoint_of_validation(folder: Path) -> str:
    """SHA-256 of the checkpoint that predicted a fold's validation cases; empty where unknown."""
    for path in sorted((folder / RECORDS).glob("*.npz")):  # all of a fold are of one checkpoint
        record = find_record(folder / RECORDS, path.stem)
        if record is not None and record.made_by.get("checkpoint"):
            return str(record.made_by["checkpoint"])
    checkpoint = folder.parent / "checkpoint_final.pth"
    return checksum(checkpoint) if checkpoint.is_file() else ""
