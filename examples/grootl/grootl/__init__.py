"""GrootL: a Mamba language model that scans along trees of tokens.

    model = grootl.GrootLForCausalLM.from_pretrained(folder_of_a_mamba, mode="causal", mixing=0.3, window=3)
"""

from .configuration import GrootLConfig
from .modeling import GrootLForCausalLM, GrootLModel

__all__ = ["GrootLConfig", "GrootLForCausalLM", "GrootLModel"]
