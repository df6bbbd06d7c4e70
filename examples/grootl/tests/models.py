"""Small models with odd sizes whose logits depend on every token, and ragged batches for them."""

from __future__ import annotations

import torch
from grootl import GrootLConfig, GrootLForCausalLM
from torch import Tensor

SIZES = {"vocab_size": 97, "hidden_size": 24, "state_size": 5, "num_hidden_layers": 3, "tie_word_embeddings": False,
         "pad_token_id": 0, "eos_token_id": None}


def small_model(mode: str = "causal", **fields) -> GrootLForCausalLM:
    """In evaluation mode. At Mamba's initialisation trees hardly matter: its steps are small and so are its states."""
    model = GrootLForCausalLM(GrootLConfig(mode=mode, **{"mixing": 0.7, **SIZES, **fields})).eval()
    with torch.no_grad():
        for block in model.backbone.layers:
            block.mixer.dt_proj.bias.add_(2.0)
            block.mixer.x_proj.weight.mul_(6.0)
            block.mixer.out_proj.weight.mul_(2.0)
    return model


def ragged(lengths: list[int], total: int | None = None, left: bool = True) -> tuple[Tensor, Tensor]:
    """Random tokens (B, L) of rows of these lengths, padded to the longest or to `total`, and their attention mask."""
    total = total or max(lengths)
    position, lengths = torch.arange(total), torch.tensor(lengths)[:, None]
    mask = position >= total - lengths if left else position < lengths
    return torch.randint(1, SIZES["vocab_size"], mask.shape) * mask, mask.long()
