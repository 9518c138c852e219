"""`nnunet_nacl.compare` gives the numbers of the command."""

from __future__ import annotations

import json

import pytest

from nnunet_nacl import compare
from nnunet_nacl.cli.main import main
from nnunet_nacl.utilities.errors import UserError
from tests.comparison.conftest import TRAINERS, made_study, study  # noqa: F401  (fixtures)
from tests.comparison.models import CONFIGURATION

NAMES = list(TRAINERS)


def test_its_numbers_and_files_are_those_of_the_command(study, without_figures, capfd):  # noqa: F811
    command = [
        "compare",
        "-d",
        "999",
        "-c",
        CONFIGURATION,
        "-tr",
        *NAMES,
        "-bad",
        "0.8",
        "-np",
        "1",
    ]
    assert main([*command, "-o", str(study.root / "by_command")]) == 0
    capfd.readouterr()

    result = compare(
        NAMES,
        datasets=[999],
        configuration=CONFIGURATION,
        bad=0.8,
        output=study.root / "by_function",
    )
    assert capfd.readouterr().out == "" and not list(study.root.glob("by_function/**/*.*"))
    written = result.write()
    files = [study.root / name / "comparison.json" for name in ("by_command", "by_function")]
    documents = [json.loads(file.read_text()) for file in files]
    for document in documents:
        del document["created"], document["command"]
    assert documents[0] == documents[1]
    assert (
        written.page == study.root / "by_function" / "report.html" and written.why_no_page is None
    )
    assert written.num_tables == len(documents[0]["tables"])

    [dataset] = documents[0]["datasets"]
    for name in NAMES:
        mean = result.means.loc[(dataset["name"], name)]
        assert mean["Dice:1"] == pytest.approx(dataset["means"]["Dice:1"][name]["mean"])
        assert result.values["Dice"][name].tolist() == dataset["values"]["Dice"][name]
    assert len(result.statistics) == len(documents[0]["statistics"])


def test_folders_need_no_data_set_and_no_output(study, capfd):  # noqa: F811
    result = compare([f"A={study.validation(NAMES[0])}", str(study.validation(NAMES[1]))])
    assert [method.label for method in result.comparisons[0].methods] == ["A", "validation"]
    with pytest.raises(UserError, match="give output, the folder"):
        result.write()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": NAMES}, "datasets"),
        (
            {"methods": NAMES, "datasets": ["999"], "configuration": "2d", "folds": ["all", 0]},
            "fold_all",
        ),
        (
            {"methods": NAMES[:1], "datasets": ["999"], "configuration": CONFIGURATION},
            "at least two",
        ),
        (
            {"methods": NAMES, "datasets": ["999"], "configuration": CONFIGURATION, "groups": "("},
            "groups '\\('",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(study, arguments, message):  # noqa: F811
    with pytest.raises(UserError, match=message):
        compare(**arguments)
