"""The model card: what a model was trained on and with, how far its confidence holds, and what its files are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from importlib.metadata import version
from typing import Any

import nnunet_nacl
from nnunet_nacl.calibration.learned_quality import SEGMENTATIONS
from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.comparison.entries import variant_of
from nnunet_nacl.documents.document import Evaluation
from nnunet_nacl.documents.map_file import structures_of
from nnunet_nacl.methods import PREFIX
from nnunet_nacl.prediction.trained_model import TrainedModel

CARD_NAME, DIAGRAM_NAME = "model_card.md", "model_card_reliability.png"
_SCORES = ("ECE", "NLL", "Brier")
_MASKS = ("foreground", "near", "predicted", "all")


def card_text(
    model: TrainedModel,
    *,
    evaluations: Mapping[str, Evaluation],
    calibration: LogOddsMap | None,
    hashes: Mapping[str, str],
    form: str | None,
    portable: bool,
) -> str:
    """The card as Markdown.

    Args:
        model: With the folds in the archive.
        evaluations: Of the validation cases, by what was measured (``as trained``, ``calibrated``); empty where the
            validation was never evaluated, and then there is no diagram beside the card either.
        calibration: The map whose numbers are shown, None where there is none.
        hashes: SHA-256 by file in the archive.
        form: Of the map that is in the checkpoints; None where there is none in them.
        portable: Whether the checkpoints name nnU-Net's own trainer.
    """
    name, plans = model.folder.name, model.opened.plans
    sections = [
        f"# {plans.get('dataset_name', 'nnU-Net model')}, {name.split('__')[2]}",
        "Research software, not a medical device. Calibration holds for cases like those below, not for other "
        "scanners, protocols or patients: measure it on your own before you rely on it.",
        "## Data\n\n" + _table(["", ""], _data(model.opened.dataset_json)),
        "## Network and training\n\n" + _table(["", ""], _network(model)),
        "## Calibration\n\n" + _calibration(model, evaluations, calibration, form),
        "## Expected quality of a case\n\n" + _quality(model),
        "## Use\n\n" + _use(model, form, portable, calibration is not None),
        "## Files\n\nSHA-256:\n\n" + "\n".join(f"- `{file}`: `{digest}`" for file, digest in hashes.items()),
        f"Written by nnunet_nacl {nnunet_nacl.__version__}.",
    ]
    return "\n\n".join(sections) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table without the rows that hold nothing but their title."""
    lines = [header, [":--", *["--:" if len(header) > 2 else ":--"] * (len(header) - 1)]]
    lines += [[_escape(cell) for cell in row] for row in rows if any(cell not in (None, "") for cell in row[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(value: Any) -> str:
    text = " ".join(str(value).split())
    return "".join(f"\\{c}" if c in "\\|*_`<>[]" else c for c in text)


def _number(value: float | None, form: str = ".4g") -> str:
    return "" if value is None or math.isnan(value) else format(value, form)


def _data(dataset: Mapping[str, Any]) -> list[tuple[str, Any]]:
    channels = dataset.get("channel_names") or dataset.get("modality") or {}
    labels = dataset.get("labels") or {}
    return [
        ("name", dataset.get("name")),
        ("description", dataset.get("description")),
        ("licence", dataset.get("licence") or dataset.get("license")),
        ("reference", dataset.get("reference")),
        ("training cases", dataset.get("numTraining")),
        ("channels", ", ".join(f"{key}: {value}" for key, value in channels.items())),
        ("labels", ", ".join(f"{value}: {key}" for key, value in labels.items())),
    ]


def _network(model: TrainedModel) -> list[tuple[str, Any]]:
    trainer, network, spacing, patch = model.folder.name.split("__")[0], *model.architecture
    variant = variant_of(trainer)
    return [
        ("trainer", trainer),
        ("loss", variant and variant.meaning),
        ("loss of a voxel (l logits, p softmax, y label, tau neighbours' shares)", variant and variant.formula),
        ("plans", model.opened.plans.get("plans_name")),
        ("folds", ", ".join(model.folds)),
        ("network", network if variant else "as its trainer builds it"),
        ("voxel spacing of the network (mm)", " x ".join(f"{value:g}" for value in spacing)),
        ("patch size (voxels)", " x ".join(map(str, patch))),
        *((f"{package}, at export", version(package)) for package in ("nnunetv2", "torch", "nnunet_nacl")),
    ]


def _calibration(
    model: TrainedModel,
    evaluations: Mapping[str, Evaluation],
    calibration: LogOddsMap | None,
    form: str | None,
) -> str:
    parts = []
    if calibration is not None:
        cases, slopes = model.record and model.record.n_cases, calibration.own_slopes
        labels = model.record.labels if model.record and len(slopes) > 1 else ["any"]
        numbers = [
            (label, *(f"{_number(a)}, {_number(b)}" for a, b in zip(*rows)))
            for label, *rows in zip(labels, slopes, calibration.offsets)
        ]
        parts.append(
            f"Calibrated after training{f' on {cases} held-out cases' if cases else ''}: the map is in "
            + (f"the checkpoints ({form})" if form else "calibration_map.json, and `nnunet_nacl predict` applies it")
            + ". Log-odds against the background (regions: logits) become slope x log-odds + offset, by the label that "
            "nnU-Net chose for the voxel:"
        )
        names = structures_of(model.labels).values()
        parts.append(_table(["label", *(f"{name}: slope, offset" for name in names)], numbers))
    if not evaluations:
        return "\n\n".join([*parts, "Not measured on the validation cases of these folds (`nnunet_nacl evaluate`)."])
    parts.append(
        "Means over the validation cases of the folds, each predicted by the network that was not trained on it"
        + (", and calibrated by a map that was fitted without it." if "calibrated" in evaluations else ".")
    )
    means = [evaluation.calibration["mean"] for evaluation in evaluations.values()]
    rows: list[tuple[Any, ...]] = [
        ("cases", *(len(evaluation.cases) for evaluation in evaluations.values())),
        ("Dice", *(_number(evaluation.mean_dice(), ".4f") for evaluation in evaluations.values())),
    ]
    rows += [
        (f"{score} {mask}", *(_number(mean[mask][score], ".4f") for mean in means))
        for score in _SCORES
        for mask in _MASKS
    ]
    parts += [_table(["", *evaluations], rows), f"![Reliability on the predicted foreground]({DIAGRAM_NAME})"]
    return "\n\n".join(parts)


def _quality(model: TrainedModel) -> str:
    """How well Dice and volume of a case are predicted, as measured on cases left out."""
    quality = model.record.quality if model.record else None
    if quality is None or not quality.checks:
        return "Nothing was learned about the Dice and volumes of single cases."
    names = structures_of(model.labels)
    rows = []
    for delivered, kinds in quality.checks.items():
        for kind, checks in kinds.items():
            made = SEGMENTATIONS.get(delivered, delivered)
            what = f"Dice, {made}" if kind == "dice" else f"volume ({quality.unit}), {made}"
            for key, check in checks.items():
                share, low, high = (_number(x) for x in astuple(check.coverage)[:3])
                covers = f"{share} ({low} to {high})" if share else ""
                error = _number(check.error), _number(check.error_of_constant)
                rows.append((f"{what}, {names.get(key, key)}", *error, covers))
    return _table(["predicted", "mean absolute error", "that of a constant", "90 % interval covers"], rows)


def _use(model: TrainedModel, form: str | None, portable: bool, has_map: bool) -> str:
    trainer, plans_name, configuration = model.folder.name.split("__")
    dataset = model.opened.plans.get("dataset_name", "DATASET")
    named = "" if plans_name == "nnUNetPlans" else f" -p {plans_name}"
    command = "nnunet_nacl predict" if has_map and not form else "nnUNetv2_predict"
    text = (
        "    nnunet_nacl import -i MODEL.zip        # or nnUNetv2_install_pretrained_model_from_zip MODEL.zip\n"
        f"    {command} -i SCANS -o PREDICTIONS -d {dataset} -c {configuration} -tr {trainer}{named} "
        f"-f {' '.join(model.folds)}"
    )
    if portable:
        text += (
            f"\n\nnnU-Net alone is enough: the checkpoints record its own trainer, {PREFIX}, which builds the same "
            "network. `-tr` names the folder, which keeps the name of the trainer that trained the model."
        )
        text += f" `checkpoint_final.pth` holds the calibrated network ({form})." if form else ""
    elif trainer != PREFIX:
        text += (
            "\n\nnnU-Net needs the package that has this trainer (`nnunet_nacl trainers` lists those of nnunet_nacl)."
        )
    return text
