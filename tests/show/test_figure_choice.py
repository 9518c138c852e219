"""Which figures a comparison has, that they are drawn, and that their words hold their numbers."""

from __future__ import annotations

import re

import pytest

from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.comparison.entries import read_entries
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import replacing
from nnunet_nacl.show.figure_choice.described import DescribedFigure, write_figures
from nnunet_nacl.show.figure_choice.over_settings import entries_over, figures_over_settings
from nnunet_nacl.show.figure_choice.standard import standard_figures
from tests.comparison.synthetic import make_comparison, make_dataset

THREE = {"nnUNetTrainer": 1.0, "nnUNetTrainerCE": 1.5, "nnUNetTrainerNACL": 2.5}
IDS = [
    "main_differences",
    "reliability_foreground",
    "reliability_predicted",
    "reliability_all",
    "differences",
    "scatter",
    "relative_difference",
    "radar_dice",
    "radar_ece",
    "rank_sum",
    "rank_mean",
]


def read_models(names):
    return read_entries([("-tr", name) for name in names])


def named(names, **arguments):
    trainers = read_models(names)
    sharpness = {trainer.name: 1.0 + 0.3 * i for i, trainer in enumerate(trainers)}
    return Comparison(trainers, [make_dataset(sharpness, **arguments)], n_bootstrap=100)


def test_every_figure_says_what_it_shows():
    comparison = make_comparison(THREE, cases=8)
    pictures = list(standard_figures(comparison))
    assert [picture.id for picture in pictures] == IDS and not list(figures_over_settings(comparison))
    for picture in pictures:
        assert picture.title and picture.caption.endswith(".") and picture.alt.endswith(".")
        assert "8 cases" in picture.subtitle
    alt = {picture.id: picture.alt for picture in pictures}
    dataset = comparison.datasets[0]
    assert f"CE {comparison.mean(dataset, 'ECE:union', 'nnUNetTrainerCE'):.3f}" not in alt["reliability_foreground"]
    for name in ("radar_dice", "scatter"):
        assert f"{comparison.means[dataset.name, 'Dice', 'nnUNetTrainerNACL'].mean:.3f}" in alt[name]
    assert f"ECE union {comparison.mean(dataset, 'ECE:union', 'nnUNetTrainerCE'):.3f}" in alt["scatter"]
    assert f"total {comparison.ranks['sum']['nnUNetTrainer']['total']:.0f}" in alt["rank_sum"]
    assert "NACL better by" in alt["differences"]
    for text in ("ECE predicted: ", "DSC: "):
        assert alt["main_differences"].count(text) == alt["differences"].count(text) == 1
    assert "HD95" in alt["differences"] and "HD95" not in alt["main_differences"]
    assert len(re.findall(r"[A-Z][a-zA-Z0-9 ]* -?\d+\.\d", alt["relative_difference"])) == 8


def test_relative_difference_of_the_two_that_are_asked_for():
    comparison = make_comparison(THREE)
    [picture] = [p for p in standard_figures(comparison) if p.id == "relative_difference"]
    assert picture.title == "NACL against stock"
    asked = ("nnUNetTrainerNACL", "nnUNetTrainerCE")
    [picture] = [p for p in standard_figures(comparison, asked) if p.id == "relative_difference"]
    assert picture.title == "CE against NACL"


def test_several_data_sets_have_their_own_figures():
    datasets = [make_dataset(THREE, cases=6, name=f"Dataset00{i}_Made", seed=i) for i in (1, 2, 3)]
    pictures = {picture.id: picture for picture in standard_figures(make_comparison(THREE, datasets=datasets))}
    assert len(pictures) == 3 * 7 + 4 and "scatter_Dataset002_Made" in pictures
    assert pictures["scatter_Dataset002_Made"].dataset == "Dataset002_Made" and pictures["rank_sum"].dataset is None
    assert "Dataset003_Made 0." in pictures["radar_dice"].alt  # an axis per data set
    two = {picture.id: picture for picture in standard_figures(make_comparison(THREE, datasets=datasets[:2]))}
    assert "Dataset002_Made Posterior 0." in two["radar_dice"].alt


def test_figures_are_drawn_with_the_notes(tmp_path):
    drawn = []

    def draw(path, *, title, subtitle, notes, also):
        drawn.append((path.name, title, subtitle, notes, also))
        return path

    figure = DescribedFigure("a", "Title", "Sub", "Caption.", "Alt.", draw)
    [entry] = write_figures([figure], tmp_path, ["only 4 cases"])
    assert entry["files"] == ["figures/a.png", "figures/a.svg"] and entry["dataset"] is None
    assert drawn == [("a.png", "Title", "Sub", ("only 4 cases",), (".svg",))]


def test_a_full_disk_says_what_to_do(tmp_path):
    def draw(path, **_):
        with replacing(path):
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="a.png: cannot be written .No space left on device.; free some .*kept"):
        write_figures([DescribedFigure("a", "T", "S", "C.", "A.", draw)], tmp_path)


def test_the_notes_stand_on_every_figure_also_with_too_few_cases_for_any_interval(tmp_path):
    names = [f"nnUNetTrainerNACL{token}" for token in ("", "_lambda0p2", "_lambda0p3", "_train10")]
    comparison = named(names, cases=1, notes=["Only-fold-zero was compared."])
    standard, settings = list(standard_figures(comparison)), list(figures_over_settings(comparison))
    assert [picture.id for picture in standard] == IDS
    assert {"training_share", "hyper_penalty_weight_NACL_dice"} < {picture.id for picture in settings}
    for picture in (*standard, *settings):
        path = picture.draw(
            tmp_path / f"{picture.id}.svg",
            title=picture.title,
            subtitle=picture.subtitle,
            notes=tuple(comparison.notes),
        )
        text = path.read_text()
        assert "Only-fold-zero" in text, picture.id
        drawn = " ".join(re.findall("<text[^>]*>([^<]*)</text>", text))
        assert "1 case" in drawn and not re.search(r"\b(nan|inf)\b", f"{drawn} {picture.alt} {picture.caption}".lower())
        if picture.id.endswith("differences"):
            assert picture.alt.count("not tested") == {"differences": 6, "main_differences": 2}[picture.id]


def test_training_shares_are_found_by_their_names(tmp_path):
    shares = ("_train10", "_train50", "")
    names = [f"nnUNetTrainer{method}_40epochs{share}" for method in ("NACL", "CE") for share in shares]
    spans = entries_over(read_models(names), "train_percent")
    assert {label: list(points) for label, points in spans.items()} == {"NACL": [10, 50, 100], "CE": [10, 50, 100]}
    assert spans["NACL"][50].name == "nnUNetTrainerNACL_40epochs_train50"
    comparison = named(names)
    [picture] = figures_over_settings(comparison)
    assert picture.id == "training_share" and "DSC of NACL: 10 % 0." in picture.alt
    picture.draw(tmp_path / "a.svg", title=picture.title, subtitle=picture.subtitle, notes=())


@pytest.mark.parametrize(
    ("names", "field", "expected"),
    [
        (["NACL_lambda0p05", "NACL", "NACL_lambda0p2"], "penalty_weight", {"NACL": [0.05, 0.1, 0.2]}),
        (["NACL_k3", "NACL_k5", "NACL"], "kernel_size", {"NACL": [None, 3, 5]}),
        (["Focal", "Focal_gamma2", "Focal_gamma1"], "gamma", {"Focal": [1, 2, 3]}),
        (["LS", "LS_alpha0p2", "CE"], "alpha", {"LS": [0.1, 0.2]}),
        (["MbLS_m3", "MbLS", "MbLS_m10"], "scale", {"MbLS": [3, 5, 10]}),
        (["SVLS", "SVLS_sigma1", "SVLS_sigma3"], "sigma", {"SVLS": [1, 2, 3]}),
        (["NACL_gaussian", "NACL_gaussian_sigma2", "NACL"], "sigma", {"NACL": [1, 2]}),
        (["NACL_lambda0p2", "NACL_40epochs"], "penalty_weight", {}),
        (["NACL", "CE"], "penalty_weight", {}),
    ],
)
def test_hyper_parameters_are_found_by_their_names(names, field, expected):
    spans = entries_over(read_models([f"nnUNetTrainer{name}" for name in names]), field)
    assert {label.split()[0]: list(points) for label, points in spans.items()} == expected


def test_hyper_parameter_radars(tmp_path):
    comparison = named(["nnUNetTrainerNACL_lambda0p05", "nnUNetTrainerNACL", "nnUNetTrainerNACL_lambda0p2"])
    pictures = list(figures_over_settings(comparison))
    assert [p.id for p in pictures] == ["hyper_penalty_weight_NACL_dice", "hyper_penalty_weight_NACL_ece"]
    assert "lambda 0.05 0." in pictures[0].alt and "lambda 0.2 0." in pictures[1].alt
    for picture in pictures:
        picture.draw(tmp_path / f"{picture.id}.svg", title=picture.title, subtitle=picture.subtitle, notes=())


def test_networks_are_found_by_their_names(tmp_path):
    names = [
        f"nnUNetTrainer{method}{network}" for method in ("NACL", "MbLS") for network in ("_unet", "", "_transunet")
    ]
    comparison = named(names[:-1])
    pictures = {picture.id: picture for picture in figures_over_settings(comparison)}
    dice = [comparison.mean(comparison.datasets[0], "Dice", name) for name in names[:-1]]
    assert pictures.keys() == {"networks_dice", "networks_ece"}
    assert pictures["networks_dice"].alt == (
        f"DSC of NACL: nnU-Net's {dice[1]:.3f}, transunet {dice[2]:.3f}, unet {dice[0]:.3f}; "
        f"DSC of MbLS: nnU-Net's {dice[4]:.3f}, transunet undefined, unet {dice[3]:.3f}."
    )
    for picture in pictures.values():
        picture.draw(tmp_path / f"{picture.id}.png", title=picture.title, subtitle=picture.subtitle, notes=())
