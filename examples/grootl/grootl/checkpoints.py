"""Models on disk: ordinary Mambas, GrootL models, and adapters on either."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .configuration import GrootLConfig
from .modeling import GrootLForCausalLM

ADAPTER_CONFIG = "adapter_config.json"


def load_model(folder: str | os.PathLike, *, mode: str | None = None, mixing: float | None = None,
               window: int | None = None, dtype: torch.dtype | None = None) -> GrootLForCausalLM | PeftModel:
    """The GrootL model in a folder: an ordinary Mamba's, a GrootL model's, or that of an adapter trained on either.

    `mode`, `mixing` and `window` replace the folder's own, which for an ordinary Mamba are GrootLConfig's defaults. The
    weights are of the folder's dtype unless `dtype` says otherwise. A model with an adapter is a peft.PeftModel.

    Raises FileNotFoundError without the folder or, for an adapter, without that of the model below it; ValueError for a
    folder of another model, and for weights that are damaged or not all there: nothing is ever initialised instead.

    >>> model = load_model("mamba-130m-hf", mode="causal")     # doctest: +SKIP
    """
    folder = _folder(folder)
    settings = {name: value for name, value in (("mode", mode), ("mixing", mixing), ("window", window))
                if value is not None}
    config = load_config(folder, **settings)
    if not (folder / ADAPTER_CONFIG).is_file():
        return _load_weights(folder, config, dtype)
    below = PeftConfig.from_pretrained(folder).base_model_name_or_path
    below = _folder(below, f"the model below the adapter, as {folder / ADAPTER_CONFIG} names it,")
    model = _load_weights(below, config, dtype)
    try:
        return PeftModel.from_pretrained(model, folder)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{folder}: the adapter doesn't fit the model in {below}: {_first_line(error)}") from error


def load_config(folder: str | os.PathLike, **settings) -> GrootLConfig:
    """The configuration of a folder's model, with the mode, mixing and window of `settings` where given.

    Raises FileNotFoundError without the folder, ValueError where it holds another model or none.
    """
    folder = _folder(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: there is no model, config.json is missing")
    return GrootLConfig.from_pretrained(folder, **settings)


def load_tokenizer(folder: str | os.PathLike) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's folder. Raises FileNotFoundError without the folder, ValueError without tokenizer."""
    folder = _folder(folder)
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder}: there is no tokenizer, tokenizer.json is missing")
    return AutoTokenizer.from_pretrained(folder)


def _load_weights(folder: Path, config: GrootLConfig, dtype: torch.dtype | None) -> GrootLForCausalLM:
    if (folder / ADAPTER_CONFIG).is_file():
        raise ValueError(f"{folder}: holds an adapter; merge it first to train another on top")
    try:
        model, found = GrootLForCausalLM.from_pretrained(folder, config=config, dtype=dtype or "auto",
                                                         output_loading_info=True)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{folder}: the weights can't be loaded: {_first_line(error)}") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, found[what])):
            raise ValueError(f"{folder}: the weights aren't those of the configuration, {what.replace('_', ' ')}: "
                             f"{', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else ""))
    return model


def _folder(folder: str | os.PathLike, what: str = "the model") -> Path:
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder}: {what} must be a folder on disk, there is none by this name")
    return Path(folder).resolve()  # An adapter notes it, and may be loaded from elsewhere.


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
