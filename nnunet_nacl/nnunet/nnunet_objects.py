"""nnU-Net's own objects for the files of a model or of predictions, once what these name was judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError, first_line
from nnunet_nacl.nnunet.image_files import quiet
from nnunet_nacl.nnunet.trust import check_names, check_network


def label_manager_of(plans: dict[str, Any], dataset_json: dict[str, Any], source: Path) -> Any:
    """nnU-Net's label manager; UserError if it does not take the files, which belong to the folder ``source``."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    check_names(plans, f"plans.json of {source}")
    try:
        with quiet():
            return PlansManager(plans).get_label_manager(dataset_json)
    except Exception as error:  # nnU-Net raises anything from KeyError to AssertionError here
        raise UserError(f"dataset.json or plans.json of {source} is not nnU-Net's: {first_line(error)}") from error


def find_reader(plans: dict[str, Any], dataset_json: dict[str, Any], source: Path) -> Any:
    """nnU-Net's reader of a data set's images, whose files belong to the folder ``source``.

    That of the plans, as in nnU-Net's validation, so that Dice agrees with its summary.json; else by the file ending.
    UserError if nnU-Net has none, or a name stands for something else.
    """
    from nnunetv2.imageio.reader_writer_registry import (
        determine_reader_writer_from_dataset_json,
        recursive_find_reader_writer_by_name,
    )

    with quiet():
        check_names(plans, f"plans.json of {source}")
        check_names(dataset_json, f"dataset.json of {source}")
        try:
            return recursive_find_reader_writer_by_name(plans["image_reader_writer"])()
        except (KeyError, RuntimeError):
            pass
        try:
            return determine_reader_writer_from_dataset_json(dataset_json, verbose=False)()
        except RuntimeError as error:
            ending = dataset_json["file_ending"]
            raise UserError(f"No reader of nnU-Net takes {ending!r} files: {first_line(error)}") from None


def configuration_of(plans_manager: Any, name: str, folder: Path) -> Any:
    """A configuration of nnU-Net's plans manager, which puts together what it inherits, and old plans in today's form.

    UserError where plans.json, which belongs to ``folder``, names something else in it than is meant.
    """
    configuration, file = plans_manager.get_configuration(name), f"plans.json of {folder}"
    check_names(configuration.configuration, file)
    check_network(configuration.configuration["architecture"], file)
    if configuration.preprocessor_class is None:
        named = configuration.preprocessor_name
        raise UserError(f"{file}: nnU-Net has no preprocessor_name {named!r}; repair the file, or plan again.")
    return configuration


def check_model(plans: dict[str, Any], dataset_json: dict[str, Any], checkpoint: dict[str, Any], folder: Path) -> None:
    """Judge all that nnU-Net looks up when it predicts with a model: UserError where it is something else.

    Args:
        plans: Content of plans.json.
        dataset_json: Content of dataset.json.
        checkpoint: Content of the first fold's.
        folder: The model's, for the message.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    for file, content in (("checkpoint", checkpoint), ("plans.json", plans), ("dataset.json", dataset_json)):
        check_names(content, f"{file} of {folder}")
    configuration_of(PlansManager(plans), checkpoint["init_args"]["configuration"], folder)
