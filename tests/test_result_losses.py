"""Tables and figure of the results page of losses, made of values with known means."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.pages import RESULTS

STOCK = "Dice + CE (stock)"


@pytest.fixture
def scripts(monkeypatch):
    """The modules of docs/results."""
    monkeypatch.syspath_prepend(str(RESULTS))
    names = ("training", "losses_values", "tables_losses", "figures_losses")
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


@pytest.fixture
def write(tmp_path):
    """Writes values of a trainer: four cases a fold; the structure `rare` is in the first two of them."""

    def written(trainer, rare=0.5, score=0.1, mapped=0.05, folds=("0",), losses=(), dataset="Dataset001_Made"):
        folder = tmp_path / dataset / trainer
        (folder / "folds").mkdir(parents=True)
        structures, forms, scans = [], [], []
        for fold in folds:
            for i in range(4):
                key = {"network": f"fold_{fold}", "case": f"case_{fold}{i}"}
                there = i < 2
                volume = 1.0 if rare > 0 and i != 3 else 0.0  # found in both, invented in one of two, or never
                values = {"structure": "rare", "true volume": float(there), "volume": volume}
                dice = rare if there else 0.0 if volume else np.nan
                structures.append(key | {"structure": "large", "Dice": 0.8, "true volume": 9.0, "volume": 9.0})
                structures.append(key | values | {"Dice": dice})
                for form, value in (("as trained", score), ("map", mapped)):
                    names = ("ECE predicted", "ECE near", "NLL all", "Brier all")
                    forms.append(key | {"form": form} | dict.fromkeys(names, value))
                scans.append(key)
        for name, rows in (("structures", structures), ("forms", forms), ("scans", scans)):
            pd.DataFrame(rows).to_csv(folder / "folds" / f"{name}.csv", index=False)
        losses = list(losses) or [1.0 / (1 + epoch) ** 3 for epoch in range(20)]
        curves = [{"fold": fold, "epoch": i, "validation loss": x, "Dice large": 0.5, "Dice rare": 0.0}
                  for fold in folds for i, x in enumerate(losses)]  # fmt: skip
        pd.DataFrame(curves).to_csv(folder / "curves.csv", index=False)
        return folder

    return written


def rows_of(text: str) -> list[dict[str, str]]:
    header, *rows = importlib.import_module("table_kinds").rows_of_table(text)
    return [dict(zip(header, row)) for row in rows]


def test_the_change_at_the_end_is_that_of_the_means_of_the_last_two_fifths(scripts) -> None:
    change = scripts.losses_values.change_at_end
    assert change(-np.arange(101.0)) == pytest.approx(-0.2)  # a line falls by a fifth of its range
    assert change([3.0] * 10) == 0
    steps = [1.0] * 12 + [0.5] * 4 + [0.0] * 4
    assert change(steps) == -0.5 and change(steps[::-1]) == 0
    assert change([*[10.0] * 6, 2.0, 4.0, 0.0, 2.0]) == pytest.approx(-0.2)
    with pytest.raises(ValueError, match="ten epochs.*got 9"):
        change([0.0] * 9)


def test_a_loss_is_flat_below_a_hundredth_of_its_range(scripts) -> None:
    module = scripts.losses_values
    assert [module.trend(x) for x in (-0.02, -0.0099, 0.0, 0.0099, 0.02)] == [
        "-2.0 %",
        "flat",
        "flat",
        "flat",
        "+2.0 %",
    ]
    epochs = np.arange(100)
    assert module.trend(module.change_at_end(np.exp(-epochs / 10))) == "flat"
    assert module.trend(module.change_at_end(np.exp(-epochs / 50))).startswith("-")
    noise = np.random.default_rng(0).normal(0, 0.01, 100)  # as large as in trainings
    assert module.trend(module.change_at_end(np.exp(-epochs / 10) + noise)) == "flat"


def test_a_decaying_rate_hides_half_of_a_steady_fall(scripts) -> None:
    """The limit of the rule: a loss that falls in proportion to nnU-Net's rate, t^0.9 where t is the share of the
    epochs that is left, is t^1.9 of its range above its end."""
    left = 1 - np.arange(1001) / 1000
    at_constant_rate, decayed = (scripts.losses_values.change_at_end(x) for x in (left, left**1.9))
    mean = {part: part**2.9 / 2.9 for part in (0.2, 0.4)}  # integrals of t^1.9
    assert at_constant_rate == pytest.approx(-0.2, abs=1e-3)
    assert decayed == pytest.approx((2 * mean[0.2] - mean[0.4]) / 0.2, abs=1e-3)
    assert -0.1 < decayed < -0.08


@pytest.mark.parametrize(
    ("name", "loss", "setting"),
    [
        ("DiceCE_100epochs_50iters", STOCK, "SGD, augmentation"),
        ("CE_100epochs_50iters_adam_noda_seed2", "CE", "Adam, no augmentation"),
        ("NACL_plainstart_100epochs_50iters_noda", "NACL, nnU-Net's start", "SGD, no augmentation"),
        ("DiceNACL_anneal_250epochs_50iters", "Dice + NACL, annealed", "SGD, augmentation, 12,500 iterations"),
        ("NACL_lambda0p2_100epochs_50iters", "NACL, penalty_weight 0.2", "SGD, augmentation"),
    ],
)
def test_a_trainer_has_a_loss_and_a_setting(scripts, tmp_path, name, loss, setting) -> None:
    variant = scripts.losses_values.variant_of(tmp_path / name)
    assert (scripts.losses_values.loss_of(variant), scripts.losses_values.setting_of(variant)) == (loss, setting)


def test_seeds_stand_side_by_side_and_only_shared_cases_count(scripts, write) -> None:
    falling = list(-np.arange(20.0))
    folders = [
        write("DiceCE_100epochs_50iters", rare=0.4, folds=("0", "1")),
        write("NACL_100epochs_50iters", rare=0.3),
        write("NACL_100epochs_50iters_seed2", rare=0, losses=falling),
        write("DiceCE_100epochs_50iters_noda", rare=0.4),
    ]
    augmented, stock, nacl, plain, stock_plain = rows_of(scripts.tables_losses.losses(folders))
    assert augmented["loss"] == "**Made, SGD, augmentation (4 cases)**" and "no augmentation" in plain["loss"]
    assert stock == stock_plain == {
        "loss": STOCK, "Dice large": "0.80", "Dice rare": "0.40", "rare missed": "0 of 2", "rare invented": "1 of 2",
        "validation loss": "flat",
    }  # fmt: skip
    assert nacl == {
        "loss": "NACL (2)", "Dice large": "0.80", "Dice rare": "0.30/0.00", "rare missed": "0/2 of 2",
        "rare invented": "1/0 of 2", "validation loss": "flat/-21.1 %",
    }  # fmt: skip


def test_structures_that_no_training_finds_are_left_out(scripts, write) -> None:
    folders = [write("DiceCE_100epochs_50iters", rare=0.04), write("CE_100epochs_50iters", rare=0)]
    _, stock, ce = rows_of(scripts.tables_losses.losses(folders))
    assert stock.keys() == ce.keys() == {"loss", "Dice large", "validation loss"}
    assert not [row for row in rows_of(scripts.tables_losses.loss_differences(folders)) if "Dice rare" in row.values()]


def test_calibration_is_shown_as_trained_and_with_the_map(scripts, write) -> None:
    folders = [
        write("DiceCE_100epochs_50iters", score=0.2, mapped=0.1, folds=("0", "1")),
        write("NACL_100epochs_50iters", score=0.12, mapped=0.1),
        write("NACL_100epochs_50iters_seed2", score=0.14, mapped=0.1),
    ]
    _, stock, stock_map, nacl, nacl_map = rows_of(scripts.tables_losses.loss_calibration(folders))
    assert (stock["loss"], stock["ECE near"], stock["NLL all"]) == (f"{STOCK}, as trained", "0.200", "0.2000")
    assert (stock_map["cases of the map"], nacl_map["cases of the map"]) == ("8", "4")
    assert nacl["ECE predicted"] == "0.120/0.140" and nacl_map["ECE predicted"] == "0.100"


def test_differences_are_those_of_the_means_over_seeds(scripts, write) -> None:
    folders = [
        write("DiceCE_100epochs_50iters", rare=0.4, score=0.2, mapped=0.1),
        write("DiceCE_100epochs_50iters_seed2", rare=0.5, score=0.24, mapped=0.1),
        write("NACL_100epochs_50iters", rare=0.3, score=0.12, mapped=0.1),
        write("NACL_100epochs_50iters_seed2", rare=0, score=0.14, mapped=0.11),
    ]
    of = {row.pop("less nnU-Net's loss"): row for row in rows_of(scripts.tables_losses.loss_differences(folders))}
    of = {measure: next(iter(row.values())) for measure, row in of.items()}
    assert of["**NACL**"] == ""
    # two trainings with the difference d have the variance d^2 / 2: pooled (.1^2 + .3^2) / 4 with 2 degrees of freedom;
    # that of a difference of two means of two is the same, and half the interval 4.3027 times its root
    assert of["Dice rare"] == "-0.300 [-0.300, -0.300] ±0.680"
    assert of["ECE near, as trained"] == "-0.090 [-0.090, -0.090] ±0.096"
    # where trainings of nnU-Net's loss are equal, one degree of freedom is left
    assert of["Dice large"] == "+0.000 [+0.000, +0.000]"
    assert of["ECE near, both with their maps"] == "+0.005 [+0.005, +0.005]"
    assert of["NLL all, as trained less stock with its map"] == "+0.0300 [+0.0300, +0.0300]"


def test_trainings_of_other_settings_tell_of_the_spread_too(scripts, write) -> None:
    folders = [write(f"{loss}_100epochs_50iters", score=0.2) for loss in ("DiceCE", "CE")]

    def shown() -> str:
        rows = rows_of(scripts.tables_losses.loss_differences(folders))
        (row,) = (row for row in rows if row["less nnU-Net's loss"] == "ECE near, as trained")
        return row["Made, SGD, augmentation (4 cases)"]

    assert shown() == "+0.000 [+0.000, +0.000]"
    for i, score in enumerate((0.1, 0.2, 0.3)):
        seed = f"_seed{i}" if i else ""
        folders.append(write(f"DiceCE_100epochs_50iters_adam{seed}", score=score))
    # variance 0.01 with 2 degrees of freedom, each mean is of one training: 4.3027 * sqrt(2 * 0.01)
    assert shown() == "+0.000 [+0.000, +0.000] ±0.608"


def test_an_interval_is_over_cases(scripts) -> None:
    index = pd.MultiIndex.from_tuples(
        [("fold_0", f"c{i}", f"c{i}") for i in range(40)], names=["network", "case", "patient"]
    )
    loss, stock = (pd.DataFrame({"x": values}, index) for values in (np.tile([0.0, 1.0], 20), np.full(40, 0.25)))
    text = scripts.tables_losses.difference([loss], [stock], "x", "x", 2)
    middle, low, high = (float(x.strip("[],")) for x in text.split())
    half = 1.96 * 0.5 / np.sqrt(40)  # of a mean of 40 fair coins
    assert (
        middle == 0.25 and low == pytest.approx(0.25 - half, abs=0.03) and high == pytest.approx(0.25 + half, abs=0.03)
    )


def test_what_cannot_be_compared_is_an_error(scripts, write, tmp_path) -> None:
    tables = scripts.tables_losses
    nacl = write("NACL_100epochs_50iters")
    with pytest.raises(ValueError, match=r"no training of nnU-Net's loss beside NACL"):
        tables.loss_differences([nacl])
    with pytest.raises(ValueError, match="no case of the same fold is in all of"):
        tables.losses([nacl, write("DiceCE_100epochs_50iters", folds=("1",))])
    with pytest.raises(FileNotFoundError, match="CE_100epochs_50iters"):
        tables.losses([nacl, nacl.with_name("CE_100epochs_50iters")])
    (tmp_path / "Dataset001_Made" / "CE_100epochs_50iters").mkdir()
    with pytest.raises(FileNotFoundError, match="measure.py first"):
        tables.losses([nacl, nacl.with_name("CE_100epochs_50iters")])
    with pytest.raises(ValueError, match="'nnUNetTrainerOther' is no trainer of a loss"):
        tables.losses([write("Other")])


def test_the_figure_is_drawn_in_shares_of_the_range(scripts, write, tmp_path) -> None:
    assert scripts.figures_losses.share_of_range(np.array([2.0, 6.0, 3.0])).tolist() == [0, 1, 0.25]
    assert scripts.figures_losses.share_of_range(np.array([2.0, 2.0])).tolist() == [0, 0]
    scripts.figures_losses.draw([write("CE_100epochs_50iters"), write("CE_100epochs_50iters_adam")], tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 0


def test_curves_are_those_of_the_checkpoint(scripts, tmp_path, monkeypatch) -> None:
    log = {"train_losses": [1.0, 0.5], "val_losses": [0.9, 0.6], "dice_per_class_or_region": [[0.1, 0.0], [0.2, 0.3]]}
    place = tmp_path / "model" / "fold_1" / "validation"
    place.mkdir(parents=True)
    torch.save({"logging": log}, place.parent / "checkpoint_final.pth")
    monkeypatch.setattr("sys.argv", ["training.py", str(tmp_path / "model"), str(tmp_path / "values")])
    with pytest.raises(SystemExit, match="no fold is trained and validated"):
        scripts.training.main()
    (place / "calibration.json").touch()
    document = SimpleNamespace(names={"1": "large", "2": "rare"})
    monkeypatch.setattr(scripts.training, "read_document", lambda path: document)
    scripts.training.main()
    assert (tmp_path / "values" / "curves.csv").read_text().split() == [
        "fold,epoch,training", "loss,validation", "loss,Dice", "large,Dice", "rare",
        "1,0,1,0.9,0.1,0", "1,1,0.5,0.6,0.2,0.3",
    ]  # fmt: skip
