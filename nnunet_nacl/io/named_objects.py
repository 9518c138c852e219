"""Judges what nnU-Net finds by the names in plans.json, dataset.json and checkpoints, before nnU-Net calls it.

nnU-Net imports and calls whatever stands there for a network or a layer, and its searches for all else find whatever a
module of its own happens to have imported. So each name is looked up here first, as nnU-Net does it. What is found has
to be of the kind that is meant, and tells itself where it comes from, since its name need not. What nnU-Net does not
find, it says itself. Nothing is judged where the user trusts the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from nnunet_nacl.errors import UserError
from nnunet_nacl.io.checkpoint_files import IF_TRUSTED, TRUSTED
from nnunet_nacl.io.image_files import quiet
from nnunet_nacl.json_files import first_line
from nnunet_nacl.registration import TRAINERS_PACKAGE

_PACKAGES = ("dynamic_network_architectures", "nnunet_nacl", TRAINERS_PACKAGE)
_RESAMPLING = "nnunetv2.preprocessing.resampling"

_Kind = tuple[str, Callable[[str], bool]]
"""What a name should stand for, in words, and whether it does."""


def _search(package: str, name: str) -> Any:
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    return recursive_find_python_class(import_module(package).__path__[0], name, package)


def _is_known(name: str) -> bool:
    """Whether a dotted name lies in a package that layers, networks or resampling functions come from."""
    from nnunet_nacl.registration.lookup import registered_trainers

    root = name.partition(".")[0]
    return (
        f"{name}.".startswith(("torch.nn.", f"{_RESAMPLING}."))
        or root in _PACKAGES
        or root in {re.split("[.:]", trainer.value)[0] for trainer in registered_trainers()}
    )


def _is_module(name: str) -> bool:
    import pydoc

    from torch import nn

    if not _is_known(name):  # before anything is imported
        return False
    found = pydoc.locate(name)
    if found is None:  # as nnU-Net's get_network_from_plans
        found = _search("dynamic_network_architectures.architectures", name.rpartition(".")[2])
    return found is None or (isinstance(found, type) and issubclass(found, nn.Module) and _is_known(found.__module__))


def _is_resampling(name: str) -> bool:
    found = _search(_RESAMPLING, name)
    return found is None or (isinstance(found, FunctionType) and _is_known(found.__module__))


def _is_trainer(name: str) -> bool:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        return issubclass(recursive_find_trainer_class_by_name(name), nnUNetTrainer)
    except (AssertionError, TypeError):  # nnU-Net asserts it too, where Python does not leave assertions out
        return False


def _class_of(package: str, module: str, base: str) -> _Kind:
    def is_meant(name: str) -> bool:
        found = _search(package, name)
        return found is None or (
            isinstance(found, type) and issubclass(found, getattr(import_module(f"{package}.{module}"), base))
        )

    return f"{base} of nnU-Net", is_meant


_LAYER: _Kind = ("network or layer of torch.nn, nnU-Net, this package, or one that registers trainers", _is_module)
_READER = _class_of("nnunetv2.imageio", "base_reader_writer", "BaseReaderWriter")
_FUNCTION: _Kind = ("resampling function of nnU-Net", _is_resampling)
_FOLDER: _Kind = ("plain name of a folder, where nnU-Net loads pickles", lambda name: Path(name).name == name != "..")
_KINDS: dict[str, _Kind] = {
    "trainer_name": ("nnUNetTrainer", _is_trainer),
    "label_manager": _class_of("nnunetv2.utilities.label_handling", "label_handling", "LabelManager"),
    "image_reader_writer": _READER,
    "overwrite_image_reader_writer": _READER,
    "preprocessor_name": _class_of(
        "nnunetv2.preprocessing", "preprocessors.default_preprocessor", "DefaultPreprocessor"
    ),
    "normalization_schemes": _class_of(
        "nnunetv2.preprocessing.normalization", "default_normalization_schemes", "ImageNormalization"
    ),
    "resampling_fn_data": _FUNCTION,
    "resampling_fn_seg": _FUNCTION,
    "resampling_fn_probabilities": _FUNCTION,
    "network_class_name": _LAYER,
    "dataset_name": _FOLDER,
    "data_identifier": _FOLDER,
}


def check_names(content: Mapping[str, Any], file: str, *keys: str) -> None:
    """Judge what one of nnU-Net's files names.

    Args:
        content: Of the file, or a part of it.
        file: For the message, such as ``plans.json of FOLDER``.
        *keys: Those to judge; none: all that are known. What is missing, or no text, is nnU-Net's matter.

    Raises:
        UserError: A name stands for something else than its key means, and the file is not trusted.
    """
    for key in keys or _KINDS:
        _check(content.get(key), file, key, _KINDS[key])


def _check(names: Any, file: str, key: str, kind: _Kind) -> None:
    if TRUSTED.get():
        return
    meant, is_meant = kind
    for name in names if isinstance(names, list) else [names]:
        if isinstance(name, str) and not is_meant(name):
            raise UserError(f"{file}: {key} is {name!r:.200}, no {meant}: it can run code. {IF_TRUSTED}")


def configuration_of(plans_manager: Any, name: str, folder: Path) -> Any:
    """A configuration of nnU-Net's plans manager, once what it names was judged.

    Args:
        plans_manager: nnU-Net's.
        name: Of the configuration, which nnU-Net puts together: what it inherits, and old plans in the present form.
        folder: Where plans.json belongs to, for the message.

    Raises:
        UserError: See :func:`check_names`.
    """
    configuration, file = plans_manager.get_configuration(name), f"plans.json of {folder}"
    check_names(configuration.configuration, file)
    network = configuration.configuration["architecture"]
    check_names(network, file, "network_class_name")
    # nnUNetTrainerBN imports conv_op, whatever else the plans say of it
    for key in (*network.get("_kw_requires_import", ()), "conv_op"):
        _check(network.get("arch_kwargs", {}).get(key), file, key, _LAYER)
    return configuration


def check_model(plans: dict[str, Any], dataset_json: dict[str, Any], checkpoint: dict[str, Any], folder: Path) -> None:
    """Judge all that nnU-Net looks up when it predicts with a model.

    Args:
        plans: Content of plans.json.
        dataset_json: Content of dataset.json.
        checkpoint: Content of the first fold's.
        folder: The model's.

    Raises:
        UserError: See :func:`check_names`.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    for file, content in (("checkpoint", checkpoint), ("plans.json", plans), ("dataset.json", dataset_json)):
        check_names(content, f"{file} of {folder}")
    configuration_of(PlansManager(plans), checkpoint["init_args"]["configuration"], folder)


def label_manager_of(plans: dict[str, Any], dataset_json: dict[str, Any], source: Path) -> Any:
    """nnU-Net's label manager; UserError if it does not take the files, which belong to the folder ``source``."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    check_names(plans, f"plans.json of {source}", "label_manager")
    try:
        with quiet():
            return PlansManager(plans).get_label_manager(dataset_json)
    except Exception as error:  # nnU-Net raises anything from KeyError to AssertionError here
        raise UserError(f"dataset.json or plans.json of {source} is not nnU-Net's: {first_line(error)}") from error


def find_reader(plans: dict[str, Any], dataset_json: dict[str, Any], source: Path) -> Any:
    """nnU-Net's reader of a data set's images, whose files belong to the folder ``source``.

    That of the plans, as in nnU-Net's validation, so that Dice agrees with its summary.json; else by the file ending.

    Raises:
        UserError: nnU-Net has none, or a name stands for something else.
    """
    from nnunetv2.imageio.reader_writer_registry import (
        determine_reader_writer_from_dataset_json,
        recursive_find_reader_writer_by_name,
    )

    with quiet():
        check_names(plans, f"plans.json of {source}", "image_reader_writer")
        check_names(dataset_json, f"dataset.json of {source}", "overwrite_image_reader_writer")
        try:
            return recursive_find_reader_writer_by_name(plans["image_reader_writer"])()
        except (KeyError, RuntimeError):
            pass
        try:
            return determine_reader_writer_from_dataset_json(dataset_json, verbose=False)()
        except RuntimeError as error:
            ending = dataset_json["file_ending"]
            raise UserError(f"No reader of nnU-Net takes {ending!r} files: {first_line(error)}") from None
