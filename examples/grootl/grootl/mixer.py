"""The mixer: Mamba's, with a scan along a tree of tokens beside the one along the sequence."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.mamba.modeling_mamba import MambaMixer
from treescan import Tree, causal_tree, flipped_token_tree, selective_tree_scan

from .cache import LayerCache, States

_LEAST_STEP = 1e-16  # exp(A times that) is 1, and its square is a float32


class Sequences(NamedTuple):
    """What all mixers of a model share in one pass.

    Fields:
        chain: a Tree of batch size 1, token after token.
        is_token: (B, L) bool, False for padding; None if there is none.
        context_length: (B,) int64, how many tokens of each row, without padding, are its prompt; None for all of them.
    """

    chain: Tree
    is_token: Tensor | None = None
    context_length: Tensor | None = None

    @classmethod
    def of(cls, length: int, is_token: Tensor | None = None, context_length: Tensor | None = None,
           device: torch.device | str = "cpu") -> Sequences:
        parent = (torch.arange(length, dtype=torch.int32, device=device) - 1).clamp(min=0)
        return cls(Tree.from_parents(parent[None]), is_token, context_length)

    def last_tokens(self, batch: int, count: int) -> Tensor:
        """(B, count) the positions of each row's last tokens, -1 in front where it hasn't that many."""
        length = self.chain.num_vertices
        position = torch.arange(length, device=self.chain.parent.device).expand(batch, length)
        if self.is_token is not None:
            position = torch.where(self.is_token, position, -1).sort(1).values
        return F.pad(position[:, -count:], (max(count - length, 0), 0), value=-1)


class Signals(NamedTuple):
    """What Mamba's selective scan takes, in float32 for a half type: u, z, delta (B, D, L), A (D, N), B and C (B, N, L), D
    and bias (D,)."""

    u: Tensor
    z: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    bias: Tensor | None

    @property
    def step(self) -> Tensor:
        """softplus(delta + bias)."""
        return F.softplus(self.delta if self.bias is None else self.delta + self.bias[:, None])


class GrootLMixer(MambaMixer):
    """MambaMixer, parameter for parameter, in the configuration's mode.

    With u, delta, A, B, C, D and z as Mamba makes them of the input, and the scans of `treescan.selective_tree_scan`,

        y = (scan of the chain + D·u + mixing·scan of the tree)·silu(z)

    where the tree is the causal one, scanned from the root, or the flipped token tree, scanned to it. Trees are built
    of what enters the states, softplus(delta) u ⊗ B, without making it; nor are states in memory. In a half type, and
    under autocast, projections and the convolution are in that type; steps, decays, states and sums are float32.

    `forward(hidden_states, sequences, layer_cache)` takes (B, L, hidden) and returns the same.
    """

    def __init__(self, config, layer_idx: int, initialize_mixer_weights: bool = True):
        super().__init__(config, layer_idx, initialize_mixer_weights)
        self.mode = config.mode if config.mixing != 0 else "chain"
        self.mixing = config.mixing
        self.window = config.window

    def forward(self, hidden_states: Tensor, sequences: Sequences, layer_cache: LayerCache | None = None) -> Tensor:
        is_token, states = sequences.is_token, None if layer_cache is None else layer_cache.states
        if is_token is not None:
            hidden_states = hidden_states.masked_fill(~is_token.unsqueeze(2), 0)
        inputs, z = self.in_proj(hidden_states).transpose(1, 2).chunk(2, 1)
        seen = inputs if states is None else torch.cat((states.inputs, inputs), 2)
        u = self.act(self.conv1d(seen)[..., seen.shape[2] - inputs.shape[2]:seen.shape[2]])
        if is_token is not None:
            u = u.masked_fill(~is_token.unsqueeze(1), 0)
        signals = self._signals(u, z)
        if states is not None:
            inputs = seen[..., seen.shape[2] - self.conv_kernel_size + 1:].clone()
            y, layer_cache.states = self._decode(signals, states._replace(inputs=inputs))
        else:
            y = self._scan(signals, sequences, inputs, layer_cache)
        return self.out_proj(y.transpose(1, 2).to(inputs.dtype))

    def _signals(self, u: Tensor, z: Tensor) -> Signals:
        step, B, C = self.x_proj(u.transpose(1, 2)).split([self.time_step_rank, *[self.ssm_state_size] * 2], 2)
        dtype, device = torch.promote_types(u.dtype, torch.float32), u.device.type
        # Half types would spoil small steps.
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            step = step.to(dtype)
            if type(self.dt_proj) is nn.Linear:  # the scan adds the bias
                delta, bias = F.linear(step, self.dt_proj.weight.to(dtype)), self.dt_proj.bias.to(dtype)
            else:  # An adapter's layer has to be called whole.
                halves = {name: parameter.to(dtype) for name, parameter in self.dt_proj.named_parameters()
                          if parameter.dtype in (torch.float16, torch.bfloat16)}
                delta, bias = torch.func.functional_call(self.dt_proj, halves, (step,)), None
        A = -torch.exp(self.A_log.to(dtype))
        u, z, B, C = (signal.to(dtype) for signal in (u, z, B, C))
        return Signals(u, z, delta.transpose(1, 2), A, B.transpose(1, 2), C.transpose(1, 2), self.D.to(dtype), bias)

    # ---- Whole sequences ----

    def _scan(self, signals: Signals, sequences: Sequences, inputs: Tensor, layer_cache: LayerCache | None) -> Tensor:
        u, z, delta, A, B, C, D, bias = signals
        y = selective_tree_scan(u, delta, A, B, C, sequences.chain, D, z, bias, delta_softplus=True)
        tree = None
        if self.mode == "causal":
            tree = self._causal_tree(signals, sequences)
            y = y + self.mixing * selective_tree_scan(u, delta, A, B, C, tree, None, z, bias, delta_softplus=True)
        elif self.mode == "original":
            tree = self._original_tree(signals, sequences)
            shifted, following = self._shifted(signals, sequences)
            up = selective_tree_scan(shifted, following, A, B, C, tree, None, z, direction="up")
            y = y + self.mixing * up
        if layer_cache is not None:
            layer_cache.states = self._states(signals, sequences, inputs, tree)
        return y

    def _causal_tree(self, signals: Signals, sequences: Sequences) -> Tree:
        with torch.no_grad():
            drive = signals.step * signals.u
            return causal_tree((drive, signals.B), self.window, context_length=sequences.context_length,
                               mask=sequences.is_token)

    def _original_tree(self, signals: Signals, sequences: Sequences) -> Tree:
        """The flipped token tree, with its vertices in the order of time."""
        least, is_token, length = int(sequences.context_length.min()), sequences.is_token, signals.u.shape[2]
        if is_token is None:
            context_length = least
        else:  # treescan counts positions.
            context_length = (is_token.int().argmax(1) + least).clamp(max=length)
        with torch.no_grad():
            drive = signals.step * signals.u
            flipped = flipped_token_tree((drive, signals.B), context_length, window=self.window, mask=is_token)
        parent = flipped.parent.flip(1)
        return Tree.from_parents(torch.where(parent < 0, parent, length - 1 - parent), forest=is_token is not None)

    @staticmethod
    def _shifted(signals: Signals, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """u and the step of a scan that decays between a token and its parent with the step of the token behind it,
        while what enters the states has the token's own step: the quotient of both goes into u. At the root it is 0."""
        step = signals.step
        following = F.pad(step[..., 1:], (0, 1))
        if sequences.is_token is not None:
            following = following * F.pad(sequences.is_token[:, None, 1:], (0, 1))
        following = following.clamp(min=_LEAST_STEP)
        return signals.u * step / following, following

    # ---- States, to generate from ----

    def _states(self, signals: Signals, sequences: Sequences, inputs: Tensor, tree: Tree | None) -> States:
        """What is to be remembered of sequences that were scanned along the chain and the tree."""
        u, step, (batch, _, length) = signals.u, signals.step, signals.u.shape
        root = sequences.last_tokens(batch, 1)
        seen = root + torch.arange(2 - self.conv_kernel_size, 1, device=u.device)
        chain = sequences.chain.parent.expand(batch, length)
        states = States(_columns(inputs, seen), self._states_below(root, u, step, signals, chain)[:, 0])
        if self.mode == "original":
            shifted = self._shifted(signals, sequences)
            return states._replace(tree=self._state_above(root, *shifted, signals, tree.parent))
        if self.mode == "causal":
            last = sequences.last_tokens(batch, self.window)
            is_token, contexts = sequences.is_token, sequences.context_length
            return states._replace(
                tree=self._states_below(last, u, step, signals, tree.parent),
                drive=_columns(step * u, last), B=_columns(signals.B, last),
                length=torch.full_like(last[:, 0], length) if is_token is None else is_token.sum(1),
                context_length=None if contexts is None else contexts.expand(batch))
        return states

    # A scan gives outputs, not states. So the tree gets readers: N more vertices for every token whose states are
    # wanted, to which these pass unchanged, since a step of 0 decays nothing and lets nothing in, and each shows one.

    def _states_below(self, position: Tensor, u: Tensor, step: Tensor, signals: Signals, parent: Tensor) -> Tensor:
        """(B, W, D, N) the states of tokens at (B, W) positions in a scan from the root, 0 at negative ones; the
        readers are their children."""
        readers = position.repeat_interleave(self.ssm_state_size, 1)
        return self._read(u, step, signals, parent, readers, "down")

    def _state_above(self, root: Tensor, u: Tensor, step: Tensor, signals: Signals, parent: Tensor) -> Tensor:
        """(B, 1, D, N) the state of the root, at (B, 1), in a scan to it; the readers are a chain above it."""
        length = parent.shape[1]
        above = torch.arange(length, length + self.ssm_state_size, device=root.device).expand(root.shape[0], -1)
        readers = (above + 1).clamp(max=length + self.ssm_state_size - 1)
        return self._read(u, step, signals, parent.scatter(1, root.clamp(min=0), length), readers, "up")

    def _read(self, u: Tensor, step: Tensor, signals: Signals, parent: Tensor, readers: Tensor,
              direction: str) -> Tensor:
        wanted = readers.shape[1] // self.ssm_state_size
        tree = Tree.from_parents(torch.cat((parent, readers.to(parent.dtype)), 1), forest=True)
        show = torch.eye(self.ssm_state_size, dtype=step.dtype, device=u.device)
        u, step, B = (F.pad(signal, (0, readers.shape[1])) for signal in (u, step, signals.B))
        show = show.repeat(1, wanted).expand(u.shape[0], -1, -1)
        C = torch.cat((torch.zeros_like(signals.C), show), 2)
        y = selective_tree_scan(u, step, signals.A, B, C, tree, direction=direction)
        return y[..., parent.shape[1]:].unflatten(2, (wanted, -1)).transpose(1, 2)

    def _decode(self, signals: Signals, states: States) -> tuple[Tensor, States]:
        """y of the tokens behind those that the states remember, one by one, and what is to be remembered then."""
        outputs = []
        for u, z, step, B, C in zip(*(signal.unbind(2) for signal in (
                signals.u, signals.z, signals.step, signals.B, signals.C))):
            drive = step * u
            entering = drive[:, :, None] * B[:, None]
            decay = torch.exp(step[:, :, None] * signals.A)
            h = chain = decay * states.chain + entering
            states = states._replace(chain=chain)
            if states.tree is not None:
                tree = decay * self._above(states, drive, B) + entering
                h = chain + self.mixing * tree
                states = states._replace(tree=_moved_on(states.tree, tree, 1))
            if self.mode == "causal":
                states = states._replace(drive=_moved_on(states.drive, drive, 2), B=_moved_on(states.B, B, 2),
                                         length=states.length + 1)
            outputs.append(((h * C[:, None]).sum(2) + signals.D * u) * F.silu(z))
        return torch.stack(outputs, 2), states

    def _above(self, states: States, drive: Tensor, B: Tensor) -> Tensor:
        """(B, D, N) the state of the next token's parent, which is the token before in mode "original"."""
        window = states.tree.shape[1]
        if window == 1:
            return states.tree[:, 0]
        context_length = None
        if states.context_length is not None:
            context_length = torch.where(states.length < states.context_length, window + 1, 0)
        is_token = torch.arange(window, -1, -1, device=drive.device) <= states.length[:, None]
        factors = torch.cat((states.drive, drive[:, :, None]), 2), torch.cat((states.B, B[:, :, None]), 2)
        parent = causal_tree(factors, window, context_length=context_length, mask=is_token).parent[:, -1].long()
        # A first token, its own parent, has the state of one that isn't there: 0.
        return states.tree[torch.arange(parent.shape[0], device=drive.device), parent.clamp(max=window - 1)]


def _columns(signal: Tensor, position: Tensor) -> Tensor:
    """(B, C, W) of a signal (B, C, L) at (B, W) positions, 0 at negative ones."""
    position = position[:, None]
    return signal.gather(2, position.clamp(min=0).expand(-1, signal.shape[1], -1)) * (position >= 0)


def _moved_on(window: Tensor, newest: Tensor, dim: int) -> Tensor:
    return torch.cat((window.narrow(dim, 1, window.shape[dim] - 1), newest.unsqueeze(dim)), dim)
