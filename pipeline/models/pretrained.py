"""Finds what timm knows of a model by its name, `hf-hub:` and `local-dir:` included, and whether its weights exist."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline import own_code, plugins
from pipeline.errors import ModelError, did_you_mean, first_line
from pipeline.progress import waiting_for

ARCHITECTURES = "pipeline.models.architectures"

SOURCES = ("hf-hub", "local-dir")
"""What may stand before a model's name: where timm shall read its architecture and its weights."""

SECONDS = 8.0
"""The time limit for the first response of the hub."""

_FILES = ("model.safetensors", "pytorch_model.bin")


def has_no_weights(model: str) -> bool:
    """Tell, without torch, whether nobody publishes weights of a model: one of Decant's own files, or of the user's.

    Args:
        model: as in a configuration.
    """
    ours = tuple(file.replace("-", "_") for file in plugins.names(ARCHITECTURES))  # a file's models begin with its name
    return model.startswith(ours) or own_code.is_own(model)


def timm_library() -> Any:
    """Return the module timm, which knows Decant's own architectures too.

    Its import takes seconds, so it waits until a network is asked for.
    """
    if "timm" not in sys.modules:
        waiting_for("timm and its models are loaded")
    collecting = gc.isenabled()
    gc.disable()  # a quarter of the import's time is a search for garbage, of which there is none
    try:
        import timm
    finally:
        if collecting:
            gc.enable()
    for file in plugins.names(ARCHITECTURES):
        plugins.load(ARCHITECTURES, file, "model")  # registers its models
    return timm


def own_models() -> list[str]:
    """List the models of `pipeline/models/architectures/`, by the names that they have with timm."""
    timm = timm_library()
    return [name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith(ARCHITECTURES)]


def timm_facts(name: str) -> Mapping[str, Any]:
    """Return timm's `pretrained_cfg` of a model: its classes, what images it expects, where its weights are.

    Empty where timm has no weights of it. Raises ModelError, with the nearest name, if there is no such model, or if
    the hub that shall describe it cannot be reached.
    """
    timm = timm_library()
    from timm.models import PretrainedCfg, get_pretrained_cfg
    from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

    source, _, place = name.partition(":")
    if source in SOURCES and place:
        if source == "hf-hub":
            refuse_unreachable(name, place, ("config.json",))
        try:
            load = load_model_config_from_hf if source == "hf-hub" else load_model_config_from_path
            cfg, _, _ = load(place)
        except Exception as error:  # a folder that is none, a file that is no JSON, a hub's refusal
            raise ModelError(
                f"{name} cannot be read",
                expected="config.json and a file of weights, as timm writes them",
                got=f"{type(error).__name__}: {error}",
            ) from None
        return {**asdict(PretrainedCfg()), **cfg}
    if not timm.is_model(name):
        raise ModelError(
            f"unknown model {name!r}",
            expected="a model of timm, or one of ours: " + ", ".join(own_models()),
            got=repr(name),
            fix=did_you_mean(name, timm.list_models()) or "timm.list_models() names them",
        )
    try:
        known = get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ModelError(f"{name} cannot be built", got=str(error)) from None
    return asdict(known) if known is not None and known.has_weights else {}


def refuse_absent(name: str) -> None:
    """Raise ModelError within seconds if a model's own weights are neither on this machine nor to be had.

    Args:
        name: of the model.
    """
    from timm.models._hub import get_cache_dir

    source, _, place = name.partition(":")
    if source == "local-dir":
        return
    cfg = timm_facts(name)
    repository = place if source == "hf-hub" else cfg.get("hf_hub_id")
    if repository:
        refuse_unreachable(name, repository, (cfg.get("hf_hub_filename"), *_FILES))
    elif (url := cfg.get("url")) and not (Path(get_cache_dir()) / url.rpartition("/")[2]).exists():
        refuse_silent(name, url, url)


def refuse_unreachable(name: str, repository: str, files: tuple[str | None, ...]) -> None:
    """Raise ModelError if none of the files is in the hub's cache on this machine, and the hub does not respond.

    Args:
        name: of the model, for errors.
        repository, files: on the hub.
    """
    import huggingface_hub
    from huggingface_hub import constants

    repository, _, revision = repository.partition("@")
    look = huggingface_hub.try_to_load_from_cache
    try:
        if any(file and isinstance(look(repository, file, revision=revision or None), str) for file in files):
            return
    except ValueError as error:  # HFValidationError is one
        what, got = f"{name} names no model on the hub", first_line(error)
        raise ModelError(what, expected="owner/name, perhaps with @revision", got=got) from None
    refuse_silent(name, repository, constants.ENDPOINT)


def refuse_silent(name: str, what: str, url: str) -> None:
    """Raise ModelError if a server does not respond. A thread makes the request: finding the address may hang.

    Args:
        name, what: of the model and what is wanted of it, for the error.
        url: that is asked for.
    """
    from huggingface_hub.utils._http import get_session

    errors: list[Exception] = []

    def request() -> None:
        try:
            get_session().head(url, timeout=SECONDS)
        except Exception as error:  # the client has many errors
            errors.append(error)

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if errors or thread.is_alive():
        raise ModelError(
            f"the weights of {name} are not on this machine, and cannot be downloaded",
            where=what,
            expected=f"a response from {url}",
            got=f"{type(errors[0]).__name__}: {errors[0]}" if errors else f"none within {SECONDS:.0f} s",
            fix="download them elsewhere, and name a weights file in place of `pretrained`",
        )
