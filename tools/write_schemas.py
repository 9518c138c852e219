"""Writes the JSON schemas of the documents into the package: run it after their types have changed."""

from __future__ import annotations

from pathlib import Path

import nnunet_nacl
from nnunet_nacl.documents.published import PUBLISHED, schema_of
from nnunet_nacl.files import to_json_text, write_atomically

if __name__ == "__main__":
    folder = Path(nnunet_nacl.__file__).parent / "documents" / "schemas"
    for name in PUBLISHED:
        write_atomically(folder / f"{name}.schema.json", to_json_text(schema_of(name)))
