"""A folder of scans and the networks of a model as the source of cases."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_nacl.calibrate.calibration_map import Inference
from nnunet_nacl.case.table import table
from nnunet_nacl.dicom.output import DicomMaker, read_codes
from nnunet_nacl.errors import UserError, one_line
from nnunet_nacl.nnunet.input_cases import InputCase, find_input_cases
from nnunet_nacl.nnunet.locate import PREDICT_ARGUMENTS
from nnunet_nacl.nnunet.network import Network
from nnunet_nacl.nnunet.output import write_case
from nnunet_nacl.nnunet.pipeline import pipeline
from nnunet_nacl.nnunet.preprocessed_case import GridCase, read_and_preprocess
from nnunet_nacl.review.calibrated_model import CalibratedModel, segment_case
from nnunet_nacl.review.deliver import Delivery, Source, Written
from nnunet_nacl.review.list_files import structure_columns
from nnunet_nacl.review.review_list import completed
from nnunet_nacl.runs.ledger import sign

_COMPUTATION = 6  # raise it when another segmentation or number comes from the same files


@dataclass(frozen=True)
class Scans:
    """A folder of scans, and how they are predicted; can be pickled.

    Attributes:
        model: The model.
        images: Folder of the scans: images named as nnU-Net wants it, or DICOM series.
        delivery: What becomes of them.
        codes: JSON file with the codes of the structures, which DICOM objects need; None for scans that are none.
        orientation: Where the axes (x, y, z) of the training's images point, such as ``RAS``, for DICOM series; empty
            looks at the training's labels.
        previous: Segmentations of the stage before, for a cascade.
        any_size: Predict scans of any size, which may take hours: see
            :func:`~nnunet_nacl.nnunet.preprocessed_case.preprocess`.
        num_parts: Runs that share the cases, each with a number of its own.
        part: Which of them this is, from 0.
        preprocessing_processes: Cases that are read at the same time; 0 reads them in this process.
        export_processes: Cases that are exported at the same time, after the network; 0 exports them in this process.
    """

    model: CalibratedModel
    images: Path
    delivery: Delivery
    codes: Path | None = None
    orientation: str = ""
    previous: Path | None = None
    any_size: bool = False
    num_parts: int = 1
    part: int = 0
    preprocessing_processes: int = 3
    export_processes: int = 3

    def source(self, network: Mapping[str, Any]) -> Source:
        """The scans as cases.

        Args:
            network: Arguments of :class:`~nnunet_nacl.nnunet.network.Network` beside the model.

        Raises:
            UserError: Folders or settings do not fit.
        """
        self._check()
        model, images, delivery = self.model, self.images, self.delivery
        cases, unusable = find_input_cases(images, model.opened, self.previous, orientation=self.orientation)
        maker = self._dicom_maker(cases)
        if self.part >= len(cases):
            print(f"note: part {self.part} of {self.num_parts} has none of the {len(cases)} scans.", file=sys.stderr)
        inference: Inference = {"step_size": network.get("step_size", 0.5), "mirroring": network.get("mirroring", True)}
        checkpoints = dict(zip(model.folds, model.hashes))
        settings = {
            "checkpoints": checkpoints,
            "calibration": None if delivery.calibration is None else delivery.calibration.to_json(),
            **inference,
            "maps": list(delivery.maps),
            "save_probabilities": delivery.probabilities,
            "findings": list(delivery.findings),
            "pictures": delivery.aims.pages != "none",
            **({"codes": maker.codes, "orientation": cases[0].orientation} if maker else {}),
        }
        record = {
            "list_of_lists_or_source_folder": str(images.resolve()),
            "generated_by": "nnunet_nacl predict",
            "num_parts": self.num_parts,
            "part_id": self.part,
        }
        listed = {case.case for case in cases} | unusable.keys()
        return Source(
            model.opened,
            cases,
            unusable,
            lambda case, earlier: sign(_files(case), {"computation": _COMPUTATION, "settings": settings}, earlier),
            partial(self._work, network, maker),
            places=[images],
            record=(PREDICT_ARGUMENTS, record),
            document={
                "images": str(images.resolve()),
                "model": {
                    "folder": str(model.folder.resolve()),
                    "dataset": model.opened.plans.get("dataset_name"),
                    "trainer": model.trainer,
                    "configuration": model.configuration,
                    "checkpoint": model.checkpoint,
                    "checkpoints_sha256": checkpoints,
                },
                "calibrated": model.calibration is not None,
                **inference,
                "training_range": model.training.whose or None,
            },
            made={
                "Scans": str(images),
                "Model": model.folder.name,
                "Folds": ", ".join(model.folds),
                "Checkpoint": model.checkpoint + ("" if model.calibration else " (not calibrated)"),
                "Segmentations": "nnU-Net's own labels, as nnUNetv2_predict",
                "Spacing and size": f"compared with {model.training.whose or 'nothing'} (axes z, y, x as nnU-Net's)",
            },
            notes=lambda finished: [*self._notes(inference), *self._others(listed)],
            members=[f"fold_{fold}" for fold in model.folds],
            num_parts=self.num_parts,
            part=self.part,
        )

    def _check(self) -> None:
        """UserError for settings that do not fit."""
        if not 0 <= self.part < self.num_parts:
            last = self.num_parts - 1
            raise UserError(f"-part_id must be from 0 to {last} for -num_parts {self.num_parts}, got {self.part}.")
        stage = self.model.previous_stage
        if stage and self.previous is None:
            raise UserError(
                f"a cascade: this network needs the segmentations of {stage}. Predict them with that configuration's "
                "original checkpoint, and give their folder with -prev_stage_predictions."
            )
        if self.previous is not None and not stage:
            named = f"-prev_stage_predictions {self.previous}"
            raise UserError(f"{named}: {self.model.configuration} is no stage of a cascade.")

    def _dicom_maker(self, cases: Sequence[InputCase]) -> DicomMaker | None:
        """Writes the objects of DICOM series; None for other scans. UserError if codes are missing, or not needed."""
        model = self.model
        if not any(case.orientation for case in cases):
            if (self.codes or self.orientation) and cases:
                raise UserError(f"-codes and -orientation go with DICOM series; {self.images} holds other images.")
            return None
        names = [model.labels.names[channel] for channel in model.labels.foreground]
        if self.codes is None:
            raise UserError(f"{self.images} holds DICOM series: give -codes FILE, with a code for {', '.join(names)}.")
        several = hashlib.sha256("".join(model.hashes).encode()).hexdigest()
        serial = model.hashes[0] if len(model.hashes) == 1 else several
        return DicomMaker(read_codes(self.codes, names), model.folder.name, serial)

    def _notes(self, inference: Inference) -> list[str]:
        model = self.model
        notes = [f"{missing[0].upper()}{missing[1:]}" for missing in model.missing]
        notes += model.other_inference(inference["step_size"], inference["mirroring"])
        if model.quality is not None:
            notes += model.quality.caveats((), several=len(model.folds) > 1)
        return notes

    def _others(self, listed: Collection[str]) -> list[str]:
        """That segmentations lie in the folder that are not of this run's scans."""
        output, ending = self.delivery.output, self.model.opened.file_ending
        there = sorted(path.name.removesuffix(ending) for path in output.glob(f"*{ending}"))
        if not (others := [case for case in there if case not in listed]):
            return []
        shown = ", ".join(map(one_line, others[:3])) + (", ..." if len(others) > 3 else "")
        return [
            f"{output} holds {len(others)} segmentation{'s' * (len(others) > 1)} of scans that are not in "
            f"{self.images} ({shown}): of an earlier run, and not in this list."
        ]

    def _read(self, maker: DicomMaker | None, case: InputCase) -> GridCase:
        prepared = read_and_preprocess(self.model, case, any_size=self.any_size)
        if maker is not None:
            maker.check(case.images)
        return prepared

    def _write(self, maker: DicomMaker | None, case: InputCase, answered: GridCase) -> Written:
        """Export, look, and write all files of a scan."""
        model, delivery = self.model, self.delivery
        reviewed = segment_case(model, answered, delivery.maps, delivery.findings)
        finished, pictures = delivery.draw(model.opened, reviewed, answered.image, case.images)
        # the network's own, as nnUNetv2_predict saves them
        probs = reviewed.case.probabilities.network.whole() if delivery.probabilities else None
        written = write_case(model.opened, reviewed.case, delivery.output, maps=reviewed.maps, probabilities=probs)
        if maker is not None:
            columns = structure_columns(completed(table([finished]), model.quality))
            if not model.quality:  # then no Dice is reported
                columns = columns.loc[:, ~columns.columns.str.contains("dice")]
            maps = [values for name, values in reviewed.maps.items() if name.startswith("probability_")]
            fractions = maps[-len(model.labels.foreground) :]  # without the background's
            rows = columns.to_dict("records")
            written += maker.write(reviewed.case, rows, case.images, delivery.output, fractions)
        return finished, pictures + written

    def _work(
        self, network: Mapping[str, Any], maker: DicomMaker | None, todo: Sequence[InputCase]
    ) -> Generator[tuple[InputCase, Any], None, None]:
        """Each scan and what came of it, a line where something is wrong."""
        networks = Network(self.model, **network)

        yield from pipeline(
            todo,
            partial(self._read, maker),
            lambda case, prepared: networks.predict(prepared),
            partial(self._write, maker),
            readers=self.preprocessing_processes,
            exporters=self.export_processes,
        )


def _files(case: InputCase) -> dict[str, Path | None]:
    files = {f"slice {i}" if case.orientation else path.name: path for i, path in enumerate(case.images)}
    return {**files, **({"previous": case.previous} if case.previous else {})}
