"""The mixer: Mamba's, with a scan along a tree of tokens beside the one along the sequence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.mamba.modeling_mamba import MambaMixer
from treescan import Tree, selective_tree_scan


class Sequences(NamedTuple):
    """What all mixers of a model share in one pass.

    Fields:
        chain: a Tree of batch size 1, token after token.
        is_token: (B, L) bool, False for padding; None if there is none.
        context_length: (B,) int64, how many tokens of each row are its prompt; None for all of them.
    """

    chain: Tree
    is_token: Tensor | None = None
    context_length: Tensor | None = None

    @classmethod
    def of(cls, length: int, is_token: Tensor | None = None, context_length: Tensor | None = None,
           device: torch.device | str = "cpu") -> Sequences:
        parent = (torch.arange(length, dtype=torch.int32, device=device) - 1).clamp(min=0)
        return cls(Tree.from_parents(parent[None]), is_token, context_length)


class GrootLMixer(MambaMixer):
    """MambaMixer, parameter for parameter, in the configuration's mode.

    With u, Δ, B and C as Mamba makes them of the input, and the scan of `treescan.selective_tree_scan`,

        y = (scan(chain) + D·u + mixing·scan(tree))·silu(z)

    No states are in memory. `forward(hidden_states, sequences)` takes (B, L, hidden) and returns the same.
    """

    def __init__(self, config, layer_idx: int, initialize_mixer_weights: bool = True):
        super().__init__(config, layer_idx, initialize_mixer_weights)
        self.mode = config.mode if config.mixing != 0 else "chain"
        self.mixing = config.mixing
        self.window = config.window

    def forward(self, hidden_states: Tensor, sequences: Sequences, cache=None) -> Tensor:
        is_token = sequences.is_token
        if is_token is not None:
            hidden_states = hidden_states * is_token.unsqueeze(2)
        u, z = self.in_proj(hidden_states).transpose(1, 2).chunk(2, 1)
        u = self.act(self.conv1d(u)[..., :u.shape[2]])
        if is_token is not None:
            u = u * is_token.unsqueeze(1)
        delta, B, C, bias = self._selection(u)
        A = -torch.exp(self.A_log.float())
        y = selective_tree_scan(u, delta, A, B, C, sequences.chain, D=self.D, z=z, delta_bias=bias, delta_softplus=True)
        return self.out_proj(y.transpose(1, 2))

    def _selection(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The step (B, D, L) without its bias, B and C (B, N, L), and the bias."""
        step, B, C = self.x_proj(u.transpose(1, 2)).split([self.time_step_rank, *[self.ssm_state_size] * 2], 2)
        if type(self.dt_proj) is nn.Linear:  # The scan adds the bias in float32: half types would lose much of small steps.
            delta, bias = F.linear(step, self.dt_proj.weight), self.dt_proj.bias
        else:  # An adapter's layer has to be called whole.
            delta, bias = self.dt_proj(step), None
        return delta.transpose(1, 2), B.transpose(1, 2), C.transpose(1, 2), bias
