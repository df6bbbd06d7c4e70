"""The loss of sparsely annotated segmentation on trees."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._arguments import kind, number
from ..functional import _check_floats, build_tree
from ..ops_selective import computed_dtype
from ..tree import Tree
from .tree_filter2d import TreeFilter2d


def _interpolated(low_feats: Tensor, mask: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Of the features that take part, at another size, and which pixels take part there."""
    shape = (low_feats.shape[0], *low_feats.shape[2:])
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask must be a bool tensor, got {kind(mask)}")
    if mask.ndim != 3 or mask.shape[0] not in (1, shape[0]) or mask.shape[1:] != low_feats.shape[2:]:
        raise ValueError(f"mask must have shape {shape} as low_feats has, or (1, ...), got {tuple(mask.shape)}")
    mask = mask[:, None]
    inside, share = (F.interpolate(values, size=size, mode="bilinear", align_corners=False)
                     for values in (low_feats.masked_fill(~mask, 0), mask.to(low_feats.dtype)))
    mask = (F.interpolate(mask.to(low_feats.dtype), size=size, mode="nearest") > 0) & (share > 0)
    return torch.where(mask, inside / share, 0), mask


def _tree(features: Tensor, mask: Tensor | None) -> Tree | None:
    """The forest of the pixels that take part; None for the tree that the filter builds of all by itself."""
    return None if mask is None else build_tree(features, metric="l2", mask=mask[:, 0])


class TreeEnergyLoss(nn.Module):
    """The distance between predictions and their own smoothing along trees, over the pixels that nobody labelled.

        p = softmax(preds),    q = F_high(F_low(p)),    loss = weight · Σ_i m[i] Σ_c |p[c, i] - q[c, i]| / max(Σ_i m[i], 1)

    F_low and F_high are tree filters (`TreeFilter2d`) on the pixel grid, over the trees and the squared distances D of low-
    and high-level features; S = exp(-D / sigma) along a path for the low-level features, exp(-D) for the others. m is 1 at
    unlabelled pixels.

    Arguments:
        sigma: > 0, the scale of distances of low-level features.

    `forward(preds, low_feats, high_feats, unlabeled_rois, weight=1.0, mask=None)`:
        preds: (B, K, H, W), logits.
        low_feats: (B, any C, h, w), as a rule the image; brought to H x W bilinearly, and a constant to autograd.
        high_feats: (B, any C, H, W), or None to leave F_high out. Gradients flow into them, but not through the tree.
        unlabeled_rois: (B, h, w), bool or numbers, not 0 where there is no label; brought to H x W by nearest neighbour.
        weight: of the loss.
        mask: (B|1, h, w) bool, True for pixels that take part, as where a depth map has values; brought to H x W as
            unlabeled_rois is. The others are in neither tree and not in the loss: whatever preds and features hold there,
            NaN too, reaches neither its value nor its gradients. Where low_feats shrink or grow, the mean is over those
            that take part.

    Returns a scalar, float32 for half types, which are converted to that first; 0 where all pixels are labelled. Raises
    ValueError for sigma <= 0 or shapes that don't fit, TypeError for another dtype, and what `tree_scan` raises.
    O(B (K + C) H W); deterministic.

    >>> preds, image = torch.zeros(1, 3, 4, 4, requires_grad=True), torch.rand(1, 3, 8, 8)
    >>> loss = TreeEnergyLoss(sigma=0.02)(preds, image, None, torch.ones(1, 8, 8), weight=0.4)
    >>> loss.shape, bool(loss < 1e-6)  # equal predictions stay equal when smoothed
    (torch.Size([]), True)

    Source: Liang et al., "Tree Energy Loss: Towards Sparsely Annotated Semantic Segmentation" (CVPR 2022), sections 3.2
    and 3.3.
    """

    def __init__(self, sigma: float = 0.02):
        super().__init__()
        self.low_filter, self.high_filter = TreeFilter2d(sigma=sigma), TreeFilter2d()

    def forward(self, preds: Tensor, low_feats: Tensor, high_feats: Tensor | None, unlabeled_rois: Tensor,
                weight: float = 1.0, mask: Tensor | None = None) -> Tensor:
        weight = number("weight", weight)
        maps = {"preds": preds, "low_feats": low_feats} | ({} if high_feats is None else {"high_feats": high_feats})
        for name, tensor in maps.items():
            _check_floats(name, tensor)
            if tensor.ndim != 4 or tensor.shape[0] != preds.shape[0]:
                raise ValueError(f"{name} must have shape ({preds.shape[0]}, C, H, W), got {tuple(tensor.shape)}")
        size = preds.shape[2:]
        if high_feats is not None and high_feats.shape[2:] != size:
            raise ValueError(f"high_feats must have preds' height and width {tuple(size)}, got {tuple(high_feats.shape[2:])}")
        if not isinstance(unlabeled_rois, Tensor):
            raise TypeError(f"unlabeled_rois must be a tensor, got {kind(unlabeled_rois)}")
        if unlabeled_rois.ndim != 3 or unlabeled_rois.shape[0] != preds.shape[0]:
            raise ValueError(f"unlabeled_rois must have shape ({preds.shape[0]}, H, W), got {tuple(unlabeled_rois.shape)}")
        preds, low_feats = (values.to(computed_dtype(values.dtype)) for values in (preds, low_feats.detach()))
        unlabelled = F.interpolate(unlabeled_rois[:, None].to(preds.dtype), size=size, mode="nearest")
        if mask is None:
            low_feats = F.interpolate(low_feats, size=size, mode="bilinear", align_corners=False)
        else:
            low_feats, mask = _interpolated(low_feats, mask, size)
            preds, unlabelled = (values.masked_fill(~mask, 0) for values in (preds, unlabelled))
        prob = torch.softmax(preds, 1)
        smooth: Tensor = self.low_filter(prob, low_feats, tree=_tree(low_feats, mask))
        if high_feats is not None:
            smooth = self.high_filter(smooth, high_feats, tree=_tree(high_feats, mask))
        return weight * (unlabelled * (prob - smooth).abs()).sum() / unlabelled.sum().clamp(min=1)

    def extra_repr(self) -> str:
        return f"sigma={self.low_filter.sigma}"
