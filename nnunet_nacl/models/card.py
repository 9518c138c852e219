"""The model card: what a model was trained on and with, how far its confidence holds, and what its files are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import nnunet_nacl
from nnunet_nacl.evaluation.results import Evaluation

__all__ = ["CARD_NAME", "card_text", "stream_hash"]

CARD_NAME = "model_card.md"
_SCORES = (("ECE", "ECE"), ("NLL", "NLL"), ("Brier", "Brier"))
_MASKS = ("foreground", "dilated", "predicted", "all")
_BLOCK = 1 << 20


def stream_hash(stream: BinaryIO) -> str:
    """SHA-256 of what a stream still holds, in hexadecimal digits."""
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def card_text(
    *,
    name: str,
    trainer: str,
    configuration: str,
    folds: Sequence[str],
    dataset_json: Mapping[str, Any],
    plans: Mapping[str, Any],
    evaluations: Mapping[str, Evaluation],
    calibration_map: Mapping[str, Any] | None,
    hashes: Mapping[str, str],
    portable: bool,
    diagram: str | None,
) -> str:
    """The card as Markdown.

    Args:
        name: Name of the model's folder.
        trainer: Class name that the model was trained with.
        configuration: Configuration of the plans.
        folds: Folds in the archive.
        dataset_json: Content of dataset.json.
        plans: Content of plans.json.
        evaluations: Of the validation cases, by what was measured (``as trained``, ``calibrated``); empty where the
            validation was never evaluated.
        calibration_map: Content of calibration_map.json, None where the model was not calibrated.
        hashes: SHA-256 by file in the archive.
        portable: Whether the checkpoints name nnU-Net's own trainer.
        diagram: File name of the reliability diagram beside the card, None if there is none.
    """
    sections = [
        f"# {plans.get('dataset_name', 'nnU-Net model')}, {configuration}",
        "Research software, not a medical device. Calibration holds for cases like those below, not for other "
        "scanners, protocols or patients: measure it on your own before you rely on it.",
        "## Data\n\n" + _table(_data(dataset_json)),
        "## Network and training\n\n" + _table(_network(trainer, configuration, folds, plans, portable)),
        "## Calibration\n\n" + _calibration(evaluations, calibration_map, diagram),
    ]
    quality = (calibration_map or {}).get("quality")
    if quality:
        sections.append("## Expected quality of a case\n\n" + _table(_quality(quality)))
    sections += [
        "## Use\n\n" + _use(name, trainer, configuration, folds, portable, calibration_map is not None),
        "## Files\n\nSHA-256:\n\n" + "\n".join(f"- `{file}`: `{digest}`" for file, digest in hashes.items()),
        f"Written by nnunet_nacl {nnunet_nacl.__version__}.",
    ]
    return "\n\n".join(sections) + "\n"


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    lines = ["| | |", "|:--|:--|"]
    lines += [f"| {_escape(key)} | {_escape(value)} |" for key, value in rows if value not in (None, "", [])]
    return "\n".join(lines)


def _escape(value: Any) -> str:
    text = " ".join(str(value).split())
    return "".join(f"\\{c}" if c in "\\|*_`<>[]" else c for c in text)


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


def _network(
    trainer: str, configuration: str, folds: Sequence[str], plans: Mapping[str, Any], portable: bool
) -> list[tuple[str, Any]]:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    planned = PlansManager(dict(plans)).get_configuration(configuration)
    recorded = " (recorded as nnUNetTrainer: nnU-Net alone can predict with it)" if portable else ""
    return [
        ("trainer", trainer + recorded),
        ("plans", plans.get("plans_name")),
        ("folds", ", ".join(folds)),
        ("network", planned.network_arch_class_name.rpartition(".")[2]),
        ("voxel spacing of the network (mm)", " x ".join(f"{value:g}" for value in planned.spacing)),
        ("patch size (voxels)", " x ".join(map(str, planned.patch_size))),
        *((f"{package} here", version) for package, version in _versions().items()),
    ]


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in ("nnunetv2", "torch", "nnunet_nacl")}


def _calibration(
    evaluations: Mapping[str, Evaluation], calibration_map: Mapping[str, Any] | None, diagram: str | None
) -> str:
    if not evaluations:
        return "Not measured: the validation kept no probabilities (`nnunet_nacl evaluate` says how to)."
    from nnunet_nacl.evaluation.document import to_document

    header = ["validation", "cases", "Dice", *(f"{title} {mask}" for title, _ in _SCORES for mask in _MASKS)]
    lines = [f"| {' | '.join(header)} |", "|:--|" + "--:|" * (len(header) - 1)]
    for title, evaluation in evaluations.items():
        mean = to_document(evaluation)["calibration"]["mean"]
        scores = [f"{mean[mask][key]:.4f}" for _, key in _SCORES for mask in _MASKS]
        lines.append(f"| {' | '.join([title, str(len(evaluation.cases)), f'{evaluation.mean_dice():.4f}', *scores])} |")
    text = "Means over the validation cases of the folds, each predicted by the network that was not trained on it.\n\n"
    text += "\n".join(lines)
    if calibration_map is not None:
        text += "\n\nCalibrated after training: `calibration_map.json` has the map and what it was fitted on."
    if diagram:
        text += f"\n\n![Reliability on the predicted foreground]({diagram})"
    return text


def _quality(quality: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What is known of the predicted Dice: rows by structure, as calibration_map.json has them."""
    rows = []
    for structure, found in quality.items():
        if isinstance(found, Mapping):
            known = {key: value for key, value in found.items() if isinstance(value, (int, float, str))}
            rows.append((structure, ", ".join(f"{key} {_short(value)}" for key, value in known.items())))
    return rows


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _use(name: str, trainer: str, configuration: str, folds: Sequence[str], portable: bool, calibrated: bool) -> str:
    checkpoint = "" if portable or not calibrated else " -chk checkpoint_calibrated.pth"
    lines = [
        "    nnunet_nacl import -i MODEL.zip        # or nnUNetv2_install_pretrained_model_from_zip MODEL.zip",
        f"    nnUNetv2_predict -i SCANS -o PREDICTIONS -d DATASET -c {configuration} -tr {trainer} "
        f"-f {' '.join(folds)}{checkpoint}",
    ]
    text = "\n".join(lines)
    if portable:
        text += f"\n\nnnU-Net alone is enough; the folder keeps its name, {name}, and `-tr` names that folder."
        if calibrated:
            text += " `checkpoint_final.pth` is the calibrated network."
    return text
