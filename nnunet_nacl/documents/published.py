"""What documents look like for other programs: JSON schemas, made from the types that they are written by.

The schemas lie in ``schemas/``, where ``tools/write_schemas.py`` writes them. Keys may be added within a version.
"""

from __future__ import annotations

import re
from typing import Any

from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.documents import decision_json
from nnunet_nacl.documents.decision_json import DecisionRecord
from nnunet_nacl.documents.map_record import SCHEMA_VERSION, MapRecord, UsedMap


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
    "calibration_map": (MapRecord, SCHEMA_VERSION),
    "decision": (DecisionRecord, decision_json.SCHEMA_VERSION),
    "prediction": (PredictionFile, 1),
}
"""Type and schema version of each document, by its name."""


def schema_of(name: str) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a document as it is written; null stands for a number that is not defined.

    A key is required unless its default is None: reading may take less, see :mod:`.map_record`.
    """
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class AsWritten(GenerateJsonSchema):
        def float_schema(self, schema: Any) -> dict[str, Any]:
            return {"type": "number" if schema.get("strict") else ["number", "null"]}

        def field_is_required(self, field: Any, total: bool) -> bool:
            if field["type"] == "typed-dict-field":
                return super().field_is_required(field, total)
            return field["schema"].get("default", ...) is not None

    kind, version = PUBLISHED[name]
    made = _described(TypeAdapter(kind).json_schema(schema_generator=AsWritten))
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
