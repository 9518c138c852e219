"""Whatever an entry of a ledger says, nothing that lies elsewhere is read or removed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.runs.ledger import Ledger, identify

SIGNATURE = {"settings": 1}


@pytest.fixture
def places(tmp_path):
    """The output of a run with a link in it that leads out, and a file elsewhere."""
    output, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (output / "maps").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "victim").write_text("")
    (output / "link").symlink_to(elsewhere)
    for name in ("case.png", "maps/case.png"):
        (output / name).write_text("")
    return output, elsewhere / "victim"


def ledger_with(output: Path, entry, name: str = "case") -> Ledger:
    (output / "ledger").mkdir()
    (output / "ledger" / f"{name}.json").write_text(json.dumps(entry))
    return Ledger(output / "ledger")


@pytest.mark.parametrize(
    "name", ["{victim}", "../elsewhere/victim", "maps/../../elsewhere/victim", "link/victim", "link", "\0", "", "."]
)
def test_only_files_in_the_output_are_given(places, name):
    output, victim = places
    name, true = name.format(victim=victim), identify(victim)
    written = {name: true, "maps/case.png": identify(output / "maps" / "case.png")}
    ledger = ledger_with(output, {"case": "case", "signature": SIGNATURE, "written": written})
    assert set(ledger.written("case", output).values()) <= {output / "maps" / "case.png"}
    assert ledger.finished("case", SIGNATURE, output) is None


def test_what_a_run_wrote_is_found_again(places):
    output, _ = places
    files = [output / "case.png", output / "maps" / "case.png"]
    for folder in (output, Path(os.path.relpath(output))):  # however the folder is named
        Ledger(folder / "ledger").remember("case", {"signature": SIGNATURE}, files, output)
        ledger = Ledger(folder / "ledger")
        assert ledger.finished("case", SIGNATURE, folder)["case"] == "case"
        assert [path.name for path in ledger.written("case", folder).values()] == ["case.png"] * 2
    (output / "case.png").unlink()
    assert ledger.finished("case", SIGNATURE, folder) is None and list(ledger.written("case", folder)) == [
        "maps/case.png"
    ]


@pytest.mark.parametrize(
    "entry",
    [
        *({"case": case} for case in ("../elsewhere/victim", "/etc/passwd", "other", "", ".", "\0", 5)),
        *({"case": "case", "written": written} for written in (None, 5, True, "case.png", ["case.png"])),
        *({"case": "case", "signature": signature} for signature in (None, 5, [1], "x")),
        [],
        None,
        "case",
    ],
)
def test_a_damaged_entry_is_none(places, entry):
    output, _ = places
    assert not ledger_with(output, entry).cases
    given = entry if isinstance(entry, dict) and entry.get("case") == "other" else None
    assert Ledger(None, [entry]).cases == ({"other"} if given else set())


def test_a_ledger_that_is_a_link_is_refused(places, tmp_path):
    output, victim = places
    kept = victim.with_suffix(".json")
    kept.write_text("{}")
    (output / "ledger").symlink_to(victim.parent)
    with pytest.raises(UserError, match="ledger is a link.*remove the link"):
        Ledger(output / "ledger").clear()
    assert kept.exists()
