"""What calibration_map.json and prediction.json look like for other programs: JSON schemas, made from types.

The schemas lie in ``schemas/``, where ``tools/write_schemas.py`` writes them. What this package reads of a file is
described by the types that it is read by; the rest by those here. Keys may be added within a version.
"""

from __future__ import annotations

import re
from typing import Any

from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.calibration.learned_quality import LearnedQuality
from nnunet_nacl.calibration.presence import LearnedPresence
from nnunet_nacl.documents.map_file import SCHEMA_VERSION, CalibrationSet, MapContent
from nnunet_nacl.documents.stored_map import StoredMap
from nnunet_nacl.metrics.detection import Detected


class Interval(TypedDict):
    """A mean over cases with the ends of its 95 % bootstrap interval over patients."""

    mean: float
    low: float
    high: float


class Change(TypedDict):
    """A value on cases that the fit has not seen.

    Attributes:
        before: Of the network's probabilities.
        after: Of the calibrated ones.
        difference: After less before.
        n: Cases where both are defined.
    """

    before: Interval
    after: Interval
    difference: Interval
    n: int


class Inference(TypedDict):
    """How the cases were predicted; empty where it is not known."""

    step_size: NotRequired[float]
    mirroring: NotRequired[bool]


class Part(TypedDict):
    """A part of the cross-fit.

    Attributes:
        map: Fitted without the part.
        presence: What the cases of the others taught about which structures are there.
        cases: Its cases.
    """

    map: StoredMap
    presence: LearnedPresence
    cases: list[str]


class Quality(TypedDict):
    """How promised Dice and volume relate to the true ones.

    Attributes:
        unit: Of the volumes: ml, mm2 or pixels.
        n_cases: What was learned from.
        n_patients: Patients they are of.
        why_not: Why nothing was learned; else empty.
        learned: For argmax (nnU-Net's labels) and decided (for Dice).
        checks: By segmentation, value and structure, on cases left out.
        presence: What was learned about what is there.
    """

    unit: str
    n_cases: int
    n_patients: int
    why_not: str
    learned: dict[str, LearnedQuality]
    checks: dict[str, Any]
    presence: LearnedPresence | None


class CalibrationMapFile(MapContent):
    """calibration_map.json: a map of probabilities, what it was fitted to, what it changes, and for whom it holds.

    Attributes:
        schema_version: Of this format.
        structures: In the order of the channels, background left out.
        regions: Whether channels are sigmoid regions.
        form: Of the map in use: temperature, shift, conditional, or given, a model's map that own cases left as it is.
        maps: By form.
        generated_by: Package and version.
        labels: Names of the rows of a map.
        source: Model folder, or folder of predictions.
        folds: Whose held-out cases they are.
        n_cases: Cases of the calibration set.
        calibration_set: Its size and hash.
        scope: For whom the map holds.
        versions: Of the packages that made it.
        nll: Mean over cases of a voxel's negative log likelihood under the map, in nats.
        forms: Each form and ridge that was tried, on cases left out.
        certain_background: Shares of voxels and expected volume that no map changes.
        relabelled: By affine form, what it would change in the labels if it were written into checkpoints.
        effect: By value, such as NLL all or ECE predicted, before and after.
        decision: Dice of nnU-Net's labels (before) and of those decided for Dice (after), by structure.
        detected: By argmax (nnU-Net's labels) or decided (for Dice), and structure, what they find of it.
        groups: Patient of each case, where patients have several.
        cross_fit: By part of the cases.
        quality: What was learned about Dice and volumes.
        inference: How the cases were predicted.
        checkpoint_sha256: By fold, of the networks; empty where it is not known.
        notes: For the reader.
        problems: By case why it could not be used.
    """

    schema_version: int
    generated_by: str
    labels: list[str]
    source: str
    folds: list[str]
    n_cases: int
    calibration_set: NotRequired[CalibrationSet]
    scope: NotRequired[str]
    versions: NotRequired[dict[str, str]]
    nll: float
    forms: list[dict[str, Any]]
    certain_background: dict[str, float]
    relabelled: dict[str, dict[str, float]]
    effect: dict[str, Change]
    decision: dict[str, Change]
    detected: dict[str, dict[str, Detected]]
    groups: NotRequired[dict[str, str]]
    cross_fit: dict[str, Part]
    quality: Quality
    inference: Inference
    checkpoint_sha256: dict[str, str]
    notes: list[str]
    problems: dict[str, str]


class UsedMap(TypedDict):
    """The calibration map that was applied.

    Attributes:
        file: Where it lay.
        sha256: Of the file.
        form: Of the map: temperature, shift, conditional or given; empty for one that was made by hand.
        calibration_set: What it was fitted to; null where that is not known.
        effect: NLL and ECE before and after, on cases that its fit has not seen.
        scope: For whom it holds.
    """

    file: str
    sha256: str
    form: str
    calibration_set: CalibrationSet | None
    effect: dict[str, Change]
    scope: str


class UsedModel(TypedDict):
    """The networks that predicted.

    Attributes:
        folder: nnU-Net's model folder.
        dataset: Its name.
        trainer: Class.
        configuration: Such as 3d_fullres.
        checkpoint: File name.
        checkpoints_sha256: By fold.
    """

    folder: str
    dataset: str | None
    trainer: str
    configuration: str
    checkpoint: str
    checkpoints_sha256: dict[str, str]


class PredictionFile(TypedDict):
    """prediction.json: how the segmentations of a folder were made, by `nnunet_nacl predict` or `review`.

    Attributes:
        schema_version: Of this format.
        generated_by: Package and version.
        created: Time, ISO 8601.
        command: As it was given.
        calibration_map: That was applied; null if none was.
        decide: What the labels were chosen for, such as dice; null for nnU-Net's own.
        maps: Kinds of the images of uncertainty.
        threshold: By structure, a predicted Dice below which is a reason to look.
        members_dice_threshold: A Dice between members below which is a reason to look; null with one member.
        notes: For the reader.
        n_cases: Scans that were done.
        n_to_look_at: Those with a reason to look.
        problems: By scan why it could not be done.
        model: Of predict.
        calibrated: Of predict: whether probabilities are calibrated.
        images: Of predict: folder of the scans.
        step_size: Of predict: of the sliding window, as a share of the patch.
        mirroring: Of predict: whether mirrored copies were predicted.
        postprocessing: Of predict: SHA-256 of nnU-Net's postprocessing.pkl; null for none.
        training_range: Of predict: the file that images were compared with.
        not_predicted_yet: Scans of parts that are not done.
        members: Of review: name and folder of each folder of predictions.
        structures: Of review: name by nnU-Net's key.
    """

    schema_version: int
    generated_by: str
    created: str
    command: str
    calibration_map: UsedMap | None
    decide: str | None
    maps: list[str]
    threshold: dict[str, float] | None
    members_dice_threshold: float | None
    notes: list[str]
    n_cases: int
    n_to_look_at: int
    problems: dict[str, str]
    model: NotRequired[UsedModel]
    calibrated: NotRequired[bool]
    images: NotRequired[str]
    step_size: NotRequired[float]
    mirroring: NotRequired[bool]
    postprocessing: NotRequired[str | None]
    training_range: NotRequired[str]
    not_predicted_yet: NotRequired[list[str]]
    members: NotRequired[list[dict[str, str]]]
    structures: NotRequired[dict[str, str]]


PUBLISHED: dict[str, tuple[Any, int]] = {
    "calibration_map": (CalibrationMapFile, SCHEMA_VERSION),
    "prediction": (PredictionFile, 1),
}
"""Type and schema version of each document, by its name."""


def schema_of(name: str) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a document; null stands for a number that is not defined."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class Nullable(GenerateJsonSchema):
        def float_schema(self, schema: Any) -> dict[str, Any]:
            return {"type": "number" if schema.get("strict") else ["number", "null"]}

    kind, version = PUBLISHED[name]
    made = _described(TypeAdapter(kind).json_schema(schema_generator=Nullable))
    made["properties"]["schema_version"]["const"] = version
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:nnunet_nacl:{name}:{version}"}
    return head | made


def _described(schema: Any) -> Any:
    """A schema whose properties are described as the docstring of their class has them, without pydantic's titles."""
    if isinstance(schema, list):
        return [_described(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in ("title", "default")}
    if "properties" not in kept:
        return {key: _described(value) for key, value in kept.items()}
    text, _, listed = kept.get("description", "").replace("``", "`").partition("\n\n")
    attributes = listed.partition("Attributes:\n")[2].partition("\n\n")[0]
    texts = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", attributes, re.MULTILINE))
    fields = {}
    for name, value in kept["properties"].items():
        fields[name] = _described(value)
        if name in texts:
            fields[name]["description"] = " ".join(texts[name].split())
    rest = {key: _described(value) for key, value in kept.items() if key not in ("properties", "description")}
    return {"description": " ".join(text.split()), **rest, "properties": fields}
