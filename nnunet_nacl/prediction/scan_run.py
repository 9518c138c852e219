"""A folder of scans in; segmentations, the review list and its page out: the one run over cases, of networks.

Three steps run at the same time: worker processes read and preprocess, this process runs the networks, other workers
export and write. Each takes a case only when there is room for it, so memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_nacl.cases.companion_files import find_references, list_folder
from nnunet_nacl.cases.components import finding_channels
from nnunet_nacl.cases.dice_thresholds import Given
from nnunet_nacl.cases.dicom_output import DICOM, DicomMaker, read_codes
from nnunet_nacl.cases.dicom_series import orientation_of
from nnunet_nacl.cases.ledger import SIGNATURE, Ledger, sign
from nnunet_nacl.cases.prediction_output import MAPS, open_output, write_reviewed
from nnunet_nacl.cases.review_list import FinishedCase
from nnunet_nacl.cases.reviewed_case import PROBABILITIES, ReviewedCase
from nnunet_nacl.cases.run import run as run_cases
from nnunet_nacl.cases.worker_processes import guarded, stream_through_workers
from nnunet_nacl.documents.decision_json import DECISION_FILE, write_decision
from nnunet_nacl.documents.map_file import structures_of
from nnunet_nacl.errors import UserError, list_problems
from nnunet_nacl.json_files import decode, encode, one_line
from nnunet_nacl.prediction.input_cases import InputCase, find_input_cases
from nnunet_nacl.prediction.network import Network, PredictedLogits
from nnunet_nacl.prediction.preprocessed_case import CompactImage, PreprocessedCase, read_and_preprocess
from nnunet_nacl.prediction.review_lists import DOCUMENT, LIST_FILES, RECORDS, ReviewList, thresholds_of
from nnunet_nacl.prediction.scan_list import write_lists
from nnunet_nacl.prediction.segmented_case import Postprocessing, segment_case
from nnunet_nacl.prediction.trained_model import TrainedModel

_ARGUMENTS = "predict_from_raw_data_args.json"
_COMPUTATION = 4  # raise it when another segmentation or number comes from the same files
_LOOKED_AT = 20  # labels of the training
_PREPROCESSED_AHEAD, _EXPORTED_AHEAD = 1, 2  # as nnU-Net's queues

Draw = Callable[[CompactImage, ReviewedCase, dict[str, Any]], FinishedCase]
"""Draws an image with its segmentation, given plans.json: :func:`nnunet_nacl.show.thumbnail.draw_thumbnail`."""

Written = tuple[FinishedCase, tuple[Path, ...]]
"""What is kept of a case, and its files."""


@dataclass(frozen=True)
class ScanRun:
    """What is to be done.

    Attributes:
        images: Folder of the scans: images named as nnU-Net wants it, or DICOM series.
        output: Folder to write to.
        maps: Some of :data:`~nnunet_nacl.prediction.segmented_case.MAPS_OF_SCANS`, or ``probabilities``.
        threshold: Cases with a lower predicted Dice are flagged, see
            :class:`~nnunet_nacl.cases.dice_thresholds.DiceThresholds`; None: none is.
        postprocessing: nnU-Net's, applied to every segmentation.
        postprocessing_source: Where it comes from, for the document.
        codes: JSON file with the codes of the structures, which DICOM objects need; None for scans that are none.
        orientation: Where the axes (x, y, z) of the training's images point, such as ``RAS``, for DICOM series; empty
            looks at the training's labels.
        findings: Names of the structures whose connected parts are listed; None for those that the map names.
        save_probabilities: Save npz and pkl beside each segmentation, as nnUNetv2_predict does.
        previous: Segmentations of the stage before, for a cascade.
        any_size: Predict scans of any size, which may take hours: see
            :func:`~nnunet_nacl.prediction.preprocessed_case.preprocess`.
        keep: Keep the cases that an earlier run finished; else all are predicted again.
        num_parts: Runs that share the cases, each with a number of its own.
        part: Which of them this is, from 0.
        preprocessing_processes: Cases that are read at the same time; 0 reads them in this process.
        export_processes: Cases that are exported at the same time, after the network; 0 exports them in this process.
        command: For the document.
    """

    images: Path
    output: Path
    maps: tuple[str, ...] = ()
    threshold: Given | None = None
    postprocessing: Postprocessing | None = None
    postprocessing_source: str = ""
    codes: Path | None = None
    orientation: str = ""
    findings: tuple[str, ...] | None = None
    save_probabilities: bool = False
    previous: Path | None = None
    any_size: bool = False
    keep: bool = False
    num_parts: int = 1
    part: int = 0
    preprocessing_processes: int = 3
    export_processes: int = 3
    command: str = ""


def predict_folder(
    model: TrainedModel,
    network: dict[str, Any],
    run: ScanRun,
    *,
    draw: Draw,
    page: Callable[[ReviewList], str],
    progress: bool = False,
) -> tuple[ReviewList, dict[str, str]]:
    """Predict every scan of a folder.

    ``output`` becomes a folder as nnUNetv2_predict leaves it, with prediction.json, index.html and its tables beside
    the segmentations. A scan that cannot be done costs only itself. Every file gets its name when it is whole, and a
    file of its own says that a case is finished: a run that was killed is continued by the same run with ``keep``.

    Args:
        model: The model.
        network: Arguments of :class:`~nnunet_nacl.prediction.network.Network` beside the model.
        run: What is to be done.
        draw: Makes the picture of a case; can be pickled.
        page: Makes the page of them all (:func:`nnunet_nacl.show.review_page.review_page`).
        progress: Show a progress bar on stderr, with the time left.

    Returns:
        The list, which holds the cases of all parts, and what is wrong with the cases of this one.

    Raises:
        UserError: Folders or settings do not fit, or not a single case could be done. A part that has no case is none.
    """
    _check(model, run)
    findings = finding_channels(model.labels, run.findings, model.quality.listed if model.quality else ())
    what = (run.images, model.opened.file_ending, model.num_channels, run.previous)
    cases, unusable = find_input_cases(*what, orientation=partial(_orientation, model, run))
    maker = _dicom_maker(model, run, cases)
    settings = {
        "checkpoints": dict(zip(model.folds, model.hashes)),
        "treatment": model.treatment.to_json(),
        "step_size": network.get("step_size", 0.5),
        "mirroring": network.get("mirroring", True),
        "postprocessing": run.postprocessing_source,
        "maps": list(run.maps),
        "save_probabilities": run.save_probabilities,
        "findings": list(findings),
        **({"codes": maker.codes, "orientation": cases[0].orientation} if maker else {}),
    }
    if not (own := cases[run.part :: run.num_parts]):
        print(f"note: part {run.part} of {run.num_parts} has none of the {len(cases)} scans.", file=sys.stderr)
    with _open_output(model, run), ExitStack() as stack:
        ledger, signed = Ledger(run.output / RECORDS), partial(_sign, settings)

        def stream(todo: Sequence[InputCase]) -> Iterable[tuple[InputCase, Any]]:
            steps = _Steps(model, run, findings, draw, maker)
            return stack.enter_context(closing(_stream(steps, network, ledger, todo))) if todo else ()

        done, problems = run_cases(
            own,
            stream,
            ledger,
            sign=signed,
            restore=_restore,
            entry_of=lambda result: encode(result[0]),
            written=lambda case, result: result[1],
            output=run.output,
            title="predict",
            progress=progress,
            again=not run.keep,
        )
        for case, problem in problems.items():
            ledger.remember_problem(case, problem)
        unusable = {case: one_line(problem) for case, problem in unusable.items()}
        found = write_lists(model, run, partial(_finished_now, run, signed, cases), cases, unusable, settings, page)
    problems = dict(sorted({**problems, **(unusable if run.part == 0 else {})}.items()))
    if problems and not done:
        raise UserError(f"{run.images}: no case could be predicted.{list_problems(problems)}")
    return found, problems


def _check(model: TrainedModel, run: ScanRun) -> None:
    """UserError for settings that do not fit."""
    if not 0 <= run.part < run.num_parts:
        raise UserError(
            f"-part_id must be from 0 to {run.num_parts - 1} for -num_parts {run.num_parts}, got {run.part}."
        )
    if model.previous_stage and run.previous is None:
        raise UserError(
            f"a cascade: this network needs the segmentations of {model.previous_stage}. Predict them with that "
            "configuration's original checkpoint, and give their folder with -prev_stage_predictions."
        )
    if run.previous is not None and not model.previous_stage:
        raise UserError(f"-prev_stage_predictions {run.previous}: {model.configuration} is no stage of a cascade.")
    if run.threshold and not (model.quality and model.quality.predicts_dice):
        raise UserError(f"-threshold is about predicted Dice, of which nothing is known: {' '.join(model.missing)}")
    thresholds_of(run.threshold, structures_of(model.labels), model.quality)


def _orientation(model: TrainedModel, run: ScanRun) -> str:
    """Where the axes of the training's images point; UserError if that is not known: left and right are at stake."""
    if run.orientation:
        if sorted("LPS"["LRPAIS".index(letter) // 2] for letter in run.orientation if letter in "LRPAIS") != [*"LPS"]:
            raise UserError(f"-orientation is three letters, such as RAS or LPS, got {run.orientation!r}.")
        return run.orientation
    if model.opened.reader_name.endswith("WithReorient"):
        return "RAS"  # whatever it is given
    found = ""
    with contextlib.suppress(UserError):
        labels = find_references(model.opened.plans.get("dataset_name"), model.folder)
        names = [name for name in list_folder(labels)[0] if name.endswith(model.opened.file_ending)]
        found = orientation_of(labels / name for name in names[:_LOOKED_AT])
    if not found:
        raise UserError(
            f"{run.images} holds DICOM series, and where the axes of the training's images point is not known here (no "
            "labels of the training in nnUNet_raw): give -orientation, such as RAS."
        )
    return found


def _dicom_maker(model: TrainedModel, run: ScanRun, cases: Sequence[InputCase]) -> DicomMaker | None:
    """What writes the objects of DICOM series; None for other scans. UserError if codes are missing, or not needed."""
    if not any(case.orientation for case in cases):
        if (run.codes or run.orientation) and cases:
            raise UserError(f"-codes and -orientation go with DICOM series; {run.images} holds other images.")
        return None
    names = [model.labels.names[channel] for channel in model.labels.foreground]
    if run.codes is None:
        raise UserError(f"{run.images} holds DICOM series: give -codes FILE, with a code for {', '.join(names)}.")
    several = hashlib.sha256("".join(model.hashes).encode()).hexdigest()
    serial = model.hashes[0] if len(model.hashes) == 1 else several
    return DicomMaker(read_codes(run.codes, names), model.folder.name, serial, PROBABILITIES in run.maps)


@contextlib.contextmanager
def _open_output(model: TrainedModel, run: ScanRun) -> Iterator[None]:
    """Make the output folder, before hours of work, and keep it; UserError if it cannot be used."""
    content: dict[str, Any] = {
        "list_of_lists_or_source_folder": str(run.images.resolve()),
        "generated_by": "nnunet_nacl predict",
    }
    content |= {"num_parts": run.num_parts, "part_id": run.part}
    names = (DOCUMENT, *LIST_FILES, MAPS, DICOM, RECORDS, DECISION_FILE)
    part = None if run.num_parts == 1 else run.part
    with open_output(run.output, [run.images], model.opened, (_ARGUMENTS, content), names, part=part):
        (run.output / DOCUMENT).unlink(missing_ok=True)
        if model.treatment.beta:  # whoever reads the folder must not take the labels for nnU-Net's own
            structures = structures_of(model.labels)
            made = {"decide": model.treatment.rule, "structures": structures, "regions": model.labels.regions}
            write_decision(run.output, (), {"scans": str(run.images.resolve()), **made}, {})
        else:
            (run.output / DECISION_FILE).unlink(missing_ok=True)
        yield


def _sign(settings: dict[str, Any], case: InputCase, earlier: Any) -> dict[str, Any]:
    """What a segmentation depends on: its images by content, and the settings."""
    files = {f"slice {i}" if case.orientation else path.name: path for i, path in enumerate(case.images)}
    files |= {"previous": case.previous} if case.previous else {}
    return sign(files, {"computation": _COMPUTATION, "settings": settings}, earlier)


def _restore(case: InputCase, entry: dict[str, Any]) -> Written | None:
    with contextlib.suppress(UserError):  # from another version, or edited
        return decode(FinishedCase, entry, case.case), ()
    return None


def _finished_now(
    run: ScanRun, signed: Callable[[InputCase, Any], dict[str, Any]], cases: Sequence[InputCase]
) -> tuple[dict[str, FinishedCase], dict[str, str]]:
    """Of all parts what is finished, and why some could not be done."""
    ledger, finished = Ledger(run.output / RECORDS), {}
    for case in cases:
        with contextlib.suppress(OSError):
            entry = ledger.finished(case.case, signed(case, ledger.entry(case.case).get(SIGNATURE)), run.output)
            if entry and (restored := _restore(case, entry)):
                finished[case.case] = restored[0]
    return finished, {case: problem for case, problem in ledger.problems.items() if case not in finished}


@dataclass(frozen=True)
class _Steps:
    """What worker processes do with a scan before and after the networks; can be pickled."""

    model: TrainedModel
    run: ScanRun
    findings: tuple[int, ...]
    draw: Draw
    maker: DicomMaker | None

    def read(self, case: InputCase) -> PreprocessedCase | str:
        """The scan as the networks take it, or a line that says what is wrong with it."""
        return guarded(case.path, partial(self._read, case))

    def _read(self, case: InputCase) -> PreprocessedCase:
        prepared = read_and_preprocess(self.model, case, any_size=self.run.any_size)
        if self.maker is not None:
            self.maker.check(case.images)
        return prepared

    def finish(self, item: tuple[InputCase, Any]) -> Written | str | None:
        """Export, look, and write all files of a scan; what is no answer of the networks passes through."""
        case, predicted = item
        if not isinstance(predicted, PredictedLogits):
            return predicted
        return guarded(case.path, partial(self._write, case, predicted))

    def _write(self, case: InputCase, predicted: PredictedLogits) -> Written:
        model, run = self.model, self.run
        wanted: dict[str, Any] = {"maps": run.maps, "findings": self.findings, "postprocessing": run.postprocessing}
        reviewed = segment_case(model, predicted, **wanted)
        finished = self.draw(predicted.image, reviewed, model.opened.plans)
        probs: Any = None
        if run.save_probabilities:  # the network's own, as nnUNetv2_predict saves them
            probs = reviewed.case.probabilities.network.whole()
        written = write_reviewed(model.opened, reviewed, run.output, probabilities=probs)
        if self.maker is not None:
            quality = model.quality.predict(reviewed.row) if model.quality else None
            written += self.maker.write(reviewed, case.images, quality, run.output)
        return finished, written


def _stream(
    steps: _Steps, network: dict[str, Any], ledger: Ledger, todo: Sequence[InputCase]
) -> Generator[tuple[InputCase, Any], None, None]:
    """Each scan and what came of it, a line where something is wrong, None where its process died."""
    run, networks = steps.run, Network(steps.model, **network)

    def predicted() -> Iterator[tuple[InputCase, PredictedLogits | str | None]]:
        processes = min(run.preprocessing_processes, len(todo))
        for case, prepared in stream_through_workers(steps.read, todo, processes, ahead=_PREPROCESSED_AHEAD):
            ledger.forget(case.case)
            if isinstance(prepared, PreprocessedCase):
                yield case, guarded(case.path, partial(networks.predict, prepared))
            else:
                yield case, prepared

    finished = stream_through_workers(steps.finish, predicted(), run.export_processes, ahead=_EXPORTED_AHEAD)
    for (case, _), outcome in finished:
        yield case, outcome
