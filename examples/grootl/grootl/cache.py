"""What a model remembers while it generates: the same memory however many tokens there were."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Cache

from .configuration import GrootLConfig


class States(NamedTuple):
    """What one mixer remembers of a batch of sequences. The last dimension of a window ends with the newest token.

    Fields:
        inputs: (B, D, K-1), what the convolution of width K still sees.
        chain: (B, D, N), the state after the last token.
        tree: (B, W, D, N), the tree's states after the last W tokens; W is the window in "causal", 1 in "original".
        drive, B: (B, D, W) and (B, N, W), the factors of what entered those states, by which "causal" chooses a parent.
        length: (B,) int64, how many tokens there were, without padding.
        context_length: (B,) int64, how many of them choose parents; None for all, the coming ones too.

    What a mode doesn't use is None.
    """

    inputs: Tensor
    chain: Tensor
    tree: Tensor | None = None
    drive: Tensor | None = None
    B: Tensor | None = None
    length: Tensor | None = None
    context_length: Tensor | None = None


class LayerCache:
    """The states of one layer, with the methods that transformers calls on a cache's layers."""

    is_compileable = False
    is_croppable = False
    supports_early_init = False

    def __init__(self):
        self.states: States | None = None

    def _map(self, function: Callable[[Tensor], Tensor]) -> None:
        if self.states is not None:
            self.states = States(*(None if tensor is None else function(tensor) for tensor in self.states))

    def reset(self) -> None:
        self.states = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._map(lambda tensor: tensor.index_select(0, beam_idx.to(tensor.device)))

    batch_select_indices = reorder_cache

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._map(lambda tensor: tensor.repeat_interleave(repeats, 0))

    def crop(self, tokens_to_remove: int) -> None:
        raise RuntimeError("a GrootL cache can't be cropped: it holds states, not tokens")

    def get_max_length(self) -> int:
        return -1  # there is no maximum


class GrootLCache(Cache):
    """The cache of a model: what its mixers remember, in memory that doesn't grow with the tokens.

    O(B D (K + N window)) numbers for each layer. `model(..., use_cache=True)` and `generate` make one; given back as
    `cache_params`, the model goes on behind the tokens it has seen, one or several at a time. It can be reordered,
    selected from and repeated along the batch, as beam search does, but not cropped.

    >>> len(GrootLCache(GrootLConfig(num_hidden_layers=2)))
    2
    """

    def __init__(self, config: GrootLConfig):
        super().__init__(layers=[LayerCache() for _ in range(config.num_hidden_layers)])
        self.positions = 0

    @property
    def is_filled(self) -> bool:
        return self.positions > 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many positions the model has seen, padding included."""
        return self.positions

    def reset(self) -> None:
        super().reset()
        self.positions = 0
