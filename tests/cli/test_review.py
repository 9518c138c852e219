"""`nnunet_nacl review` as a user types it."""

from __future__ import annotations

import csv
import json

from nnunet_nacl.cli.main import main


def test_scans_chosen_by_chance_and_the_folder_for_slicer(predict, tmp_path, capsys):
    source, out, images = predict(), tmp_path / "out", tmp_path / "images"
    images.mkdir()
    arguments = ["review", "-i", str(source), "-o", str(out), "-np", "1", "-also", "2", "--slicer"]
    assert main(arguments) == 2 and "nnUNet_raw" in capsys.readouterr().err and not out.exists()
    for i in range(3):
        (images / f"case_{i}_0000.nii.gz").write_bytes((source / f"case_{i}.nii.gz").read_bytes())
    (source / "predict_from_raw_data_args.json").write_text(json.dumps({"list_of_lists_or_source_folder": str(images)}))
    assert main(arguments) == 0
    printed, record = capsys.readouterr().out, json.loads((out / "prediction.json").read_text())
    with open(out / "review.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    others = [row["case"] for row in rows if row["flag"] == "no"]
    chosen = record["random_check"]
    assert chosen == sorted(chosen) and len(chosen) == 2 < len(others) + 1 and set(chosen) <= set(others)
    assert f"Chosen by chance, to be looked at too: {', '.join(chosen)}" in printed
    with open(out / "review" / "mapping.csv", newline="") as file:
        paths = [(row["img_path"], row["mask_path"]) for row in csv.DictReader(file)]
    copies = out / "review" / "to_edit"
    assert paths == [
        (str(images / f"{row['case']}_0000.nii.gz"), str(copies / f"{row['case']}.nii.gz")) for row in rows
    ]
    (copies / "case_0.nii.gz").unlink()
    assert main(arguments) == 0 and "keeps 2 masks" in capsys.readouterr().out  # the ledger knows every case still
    assert (copies / "case_0.nii.gz").read_bytes() == (out / "case_0.nii.gz").read_bytes()
