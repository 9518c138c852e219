"""Tables and the figure of start.md, from the values that start.py keeps in study/DATASET/start/TRAINER.

python docs/results/start_tables.py FIGURE.png    (the tables: write_tables.py)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from study_tables import table

from nnunet_nacl.metrics.detection import Detected
from nnunet_nacl.show.layout import BLACK, BLUE, GREEN, ORANGE, PURPLE, figure_settings, save_figure

STUDY = Path(__file__).resolve().parent / "study"
LOSSES = {
    "DiceCE": "Dice + CE (stock)",
    "DiceCE_anneal": "Dice + CE, annealed",
    "DiceNACL_anneal": "Dice + NACL, annealed",
}
SCHEDULES = {
    "100epochs_50iters": "",
    "100epochs_50iters_seed2": "another seed",
    "250epochs_50iters": "12,500 iterations",
    "40epochs_50iters_adam": "Adam",
}
SCORES = {"ECE predicted": 3, "ECE foreground": 3, "NLL all": 4}
COLOURS = {"NACL": BLUE, "CE": GREEN, "Focal": PURPLE, "MbLS": ORANGE, "DiceCE": BLACK}


def label_of(trainer: str) -> str:
    """Loss, start and schedule of a trainer for people."""
    words = trainer.split("_")
    cut = next(i for i, word in enumerate(words) if word[0].isdigit())
    loss, schedule = "_".join(words[:cut]), "_".join(words[cut:])
    plain = loss.removesuffix("_plainstart")
    parts = [LOSSES.get(plain, plain), "nnU-Net's start" if plain != loss else "", SCHEDULES[schedule]]
    return ", ".join(filter(None, parts))


def structures_in(rows: pd.DataFrame) -> list[str]:
    """Names of the structures, in order."""
    return [column.removeprefix("Dice ") for column in rows if column.startswith("Dice ")]


def trainings(folders: Sequence[Path]) -> str:
    """A line for each network: Dice by structure, of the cases that have it, and scores: means over cases."""
    lines, dataset = [], None
    for folder in folders:
        for path in sorted(folder.glob("cases_*.csv")):
            rows = pd.read_csv(path)
            names = structures_in(rows)
            if folder.parents[1].name != dataset:
                dataset = folder.parents[1].name
                lines.append([f"**{dataset.partition('_')[2]}**: {'/'.join(names)}", *[""] * (2 + len(SCORES))])
            dice = "/".join(f"{rows[f'Dice {name}'][rows[f'true {name}'] > 0].mean():.3f}" for name in names)
            scores = [f"{rows[name].mean():.{digits}f}" for name, digits in SCORES.items()]
            lines.append([label_of(folder.name), path.stem.removeprefix("cases_"), dice, *scores])
    return table(["loss", "fold", "Dice", *SCORES], lines)


def decided(folders: Sequence[Path]) -> str:
    """A line for each loss and structure that some find and some miss or invent: nnU-Net's labels, and decided ones.

    First the validation cases, each by what the others taught, then cases in no fold. ECE is of nnU-Net's labels, as
    trained and with the map.
    """
    lines = []
    for name, title in (("decided.csv", "folds"), ("outer.csv", "average of these folds, cases in none")):
        tables = {folder: pd.read_csv(folder / name) for folder in folders if (folder / name).is_file()}
        found = {
            (structure, folder): [_detected(rows, kind) for kind in ("argmax", "decided")]
            for folder, values in tables.items()
            for structure, rows in values.groupby("structure", sort=False)
        }
        if found:
            count = next(iter(tables.values()))["case"].nunique()
            lines.append([f"**{title} ({count})**", *[""] * 5])
        for structure in dict.fromkeys(key for key, _ in found):
            own = [pair for (key, _), pair in found.items() if key == structure]
            if (
                not any(one.missed or one.invented for pair in own for one in pair)
                or max(p[0].dice for p in own) < 0.05
            ):
                continue
            for folder, values in tables.items():
                pair = found[structure, folder]
                cells = ["→".join(f"{one.dice:.3f}" for one in pair)]
                cells.append("→".join(f"{one.missed}/{one.n_there}" for one in pair))
                cells.append("→".join(f"{one.invented}/{one.n_absent}" for one in pair))
                cases = values.drop_duplicates(["fold", "case"])
                cells += [f"{cases[one].mean():.3f}" if one in cases else "" for one in ("ECE as trained", "ECE")]
                lines.append([f"{structure}, {label_of(folder.name)}", *cells])
    return table(["argmax→decided", "Dice", "missed", "invented", "ECE predicted", "with the map"], lines)


def _detected(rows: pd.DataFrame, kind: str) -> Detected:
    return Detected.of(rows[f"{kind} Dice"], rows["true"] > 0, rows[f"{kind} voxels"] > 0)


TABLES = {"trainings": trainings, "decided": decided}


def figure(path: Path) -> None:
    """Training-time Dice and validation loss by epoch."""
    emidec, usual = STUDY / "Dataset028_EMIDEC" / "start", "100epochs_50iters"
    with figure_settings():
        drawn, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
        for name, style in (("NACL", "-"), ("NACL_plainstart", ":")):
            for seed, width in (("", 1.6), ("_seed2", 0.8)):
                place = emidec / f"{name}_{usual}{seed}" / "curve_0.csv"
                if not place.is_file():
                    continue
                rows = pd.read_csv(place)
                start = "frequencies" if name == "NACL" else "nnU-Net's"
                for structure, colour in (("LV cavity", COLOURS["NACL"]), ("normal myocardium", COLOURS["MbLS"])):
                    label = f"{structure}, {start} start" if not seed else None
                    options = {"color": colour, "linestyle": style, "linewidth": width, "label": label}
                    axes[0].plot(rows["epoch"], rows[f"Dice {structure}"], **options)
                label = None if seed else f"{start} start"
                axes[1].plot(
                    rows["epoch"], rows["validation loss"], style, color=COLOURS["NACL"], linewidth=width, label=label
                )
        axes[0].set_title("EMIDEC, NACL: training-time Dice")
        axes[1].set_title("EMIDEC, NACL: validation loss")
        axes[1].set_ylim(top=1)
        for loss, colour in COLOURS.items():
            for dataset, style in (
                ("Dataset028_EMIDEC", "-"),
                ("Dataset030_DRIVE", "--"),
                ("Dataset004_Hippocampus", ":"),
            ):
                place = STUDY / dataset / "start" / f"{loss}_{usual}" / "curve_0.csv"
                if not place.is_file():
                    continue
                rows = pd.read_csv(place)
                names = [name for name in structures_in(rows) if name not in ("infarct", "no-reflow")]
                mean = rows[[f"Dice {name}" for name in names]].mean(axis=1)
                label = LOSSES.get(loss, loss) if style == "-" else None
                axes[2].plot(rows["epoch"][:40], mean[:40], style, color=colour, label=label, linewidth=1.2)
        axes[2].set_title("EMIDEC (-), DRIVE (--), hippocampus (..): Dice")
        for axis in axes:
            axis.set_xlabel("epoch of 50 iterations")
            axis.legend(fontsize=7)
        save_figure(drawn, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=Path)
    figure(parser.parse_args().figure)


if __name__ == "__main__":
    main()
