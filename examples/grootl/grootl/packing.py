"""Samples packed into rows, as collators for training without padding make them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Packing(NamedTuple):
    """Which token of the rows is which of the samples'.

    Fields:
        place: (S, M) int64, where each of the S samples' tokens is in the flattened rows; of M, the most that one has.
        is_token: (S, M) bool, False behind a sample's last token.
    """

    place: Tensor
    is_token: Tensor

    @classmethod
    def of(cls, batch: int, length: int, is_token: Tensor | None, position_ids: Tensor | None, seq_idx: Tensor | None,
           cu_seq_lens_q: Tensor | None, cu_seq_lens_k: Tensor | None) -> Packing | None:
        """What these arguments say, which must agree; None where every row is one sample.

        Arguments:
            is_token: (B, L) bool, False for padding, which is in no sample; None for none.
            position_ids: (B|1, L); a sample begins where they don't go on by one.
            seq_idx: (B|1, L), numbers of samples, which begin where another number does.
            cu_seq_lens_q, cu_seq_lens_k: (S+1,), where samples begin in the flattened rows, and B·L at the end.

        Raises ValueError for another shape, positions that don't ascend from 0 to B·L, or arguments that disagree.
        """
        told = {}
        for name, numbers, step in (("position_ids", position_ids, 1), ("seq_idx", seq_idx, 0)):
            if numbers is None:
                continue
            if numbers.ndim != 2 or numbers.shape[0] not in (1, batch) or numbers.shape[1] != length:
                raise ValueError(f"{name} must have shape (B, L) = {(batch, length)}, got {tuple(numbers.shape)}")
            begins = torch.ones(batch, length, dtype=torch.bool, device=numbers.device)
            begins[:, 1:] = numbers[:, 1:] != numbers[:, :-1] + step
            told[name] = begins
        for name, bounds in (("cu_seq_lens_q", cu_seq_lens_q), ("cu_seq_lens_k", cu_seq_lens_k)):
            if bounds is None:
                continue
            if bounds.ndim != 1 or bounds.shape[0] < 2 or bounds[0] != 0 or bounds[-1] != batch * length or (
                    bounds.diff() < 0).any():
                raise ValueError(f"{name} must ascend from 0 to B·L = {batch * length}, got {bounds.tolist()}")
            begins = torch.zeros(batch * length + 1, dtype=torch.bool, device=bounds.device)
            begins[bounds.long()] = True
            told[name] = begins[:-1].view(batch, length)
            told[name][:, 0] = True
        if not told:
            return None
        (first, begins), *others = told.items()
        real = torch.ones_like(begins) if is_token is None else is_token
        for name, other in others:
            if not torch.equal(other.to(real.device) & real, begins & real):
                raise ValueError(f"{name} must say that samples begin where {first} does")
        # What a sample begins with may be behind padding.
        before = torch.zeros_like(real)
        before[:, 1:] = real[:, :-1]
        begins = real & (begins | ~before)
        if int(begins.sum()) <= batch:
            return None
        number = begins.flatten().cumsum(0)[real.flatten()] - 1
        place = real.flatten().nonzero()[:, 0]
        sizes = number.bincount()
        within = torch.arange(number.shape[0], device=number.device) - (sizes.cumsum(0) - sizes)[number]
        table = place.new_zeros(sizes.shape[0], int(sizes.max()))
        table[number, within] = place
        return cls(table, torch.arange(table.shape[1], device=table.device) < sizes[:, None])

    def unpack(self, rows: Tensor) -> Tensor:
        """(B, L, ...) to (S, M, ...); what is behind a sample's last token is anybody's."""
        return rows.flatten(0, 1)[self.place]

    def pack(self, samples: Tensor, batch: int, length: int) -> Tensor:
        """(S, M, ...) to (B, L, ...), 0 at padding."""
        rows = samples.new_zeros(batch * length, *samples.shape[2:])
        return rows.index_put((self.place[self.is_token],), samples[self.is_token]).unflatten(0, (batch, length))
