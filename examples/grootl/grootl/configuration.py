"""The configuration of a GrootL model: Mamba's, and how its scans run along trees."""

from __future__ import annotations

import math
import os

from transformers import AutoConfig, MambaConfig

MODES = ("chain", "original", "causal")


class GrootLConfig(MambaConfig):
    """The configuration of `GrootLModel` and `GrootLForCausalLM`.

    All fields of transformers' MambaConfig, and

    - mode: "chain" is Mamba. "original" is the published algorithm, which adds `mixing` times a scan of the flipped
      token tree over the prompt. "causal" adds `mixing` times a scan of the causal tree, in which every token of the
      prompt hangs on its most similar among the `window` tokens before it.
    - mixing: a finite number. At 0 every mode is Mamba.
    - window: at least 1, how far a token sees in the prompt. At 1 the trees are chains.

    Reads the configuration of an ordinary Mamba too. Raises ValueError for a mode, mixing or window out of range, and
    for the configuration of another model.

    >>> GrootLConfig(mode="causal", hidden_size=64, num_hidden_layers=2).mixing
    0.3

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.3.
    """

    model_type = "grootl"

    mode: str = "causal"
    mixing: float | int = 0.3
    window: int = 3

    def __post_init__(self, **kwargs):
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}, got {self.mode!r}")
        if not math.isfinite(self.mixing):
            raise ValueError(f"mixing must be a finite number, got {self.mixing}")
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        # transformers would set these after the checks.
        own = {name: kwargs.pop(name) for name in ("mode", "mixing", "window") if name in kwargs}
        return super().from_dict({**config_dict, **own}, **kwargs)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs):
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        model_type = config_dict.get("model_type")
        if model_type not in (cls.model_type, MambaConfig.model_type):
            raise ValueError(f"{pretrained_model_name_or_path} must hold a model of type 'mamba' or 'grootl', got "
                             f"{model_type!r}")
        return {**config_dict, "model_type": cls.model_type}, kwargs


AutoConfig.register(GrootLConfig.model_type, GrootLConfig)
