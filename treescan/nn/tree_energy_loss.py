"""The loss of sparsely annotated segmentation on trees."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._arguments import number
from .tree_filter2d import TreeFilter2d


class TreeEnergyLoss(nn.Module):
    """The distance between predictions and their own smoothing along trees, over the pixels that nobody labelled.

        p = softmax(preds),    q = F_high(F_low(p)),    loss = weight · Σ_i m[i] Σ_c |p[c, i] - q[c, i]| / max(Σ_i m[i], 1)

    F_low and F_high are tree filters (`TreeFilter2d`) on the pixel grid, over the trees and the squared distances D of low-
    and high-level features; S = exp(-D / sigma) along a path for the low-level features, exp(-D) for the others. m is 1 at
    unlabelled pixels.

    Arguments:
        sigma: > 0, the scale of distances of low-level features.

    `forward(preds, low_feats, high_feats, unlabeled_rois, weight=1.0)`:
        preds: (B, K, H, W), logits.
        low_feats: (B, any C, h, w), as a rule the image; brought to H x W bilinearly, and a constant to autograd.
        high_feats: (B, any C, H, W), or None to leave F_high out. Gradients flow into them, but not through the tree.
        unlabeled_rois: (B, h, w), bool or numbers, not 0 where there is no label; brought to H x W by nearest neighbour.
        weight: of the loss.

    Returns a scalar; 0 where all pixels are labelled. Raises ValueError for sigma <= 0 or shapes that don't fit, and what
    `tree_scan` raises. O(B (K + C) H W); deterministic.

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
                weight: float = 1.0) -> Tensor:
        weight = number("weight", weight)
        for name, tensor in (("preds", preds), ("low_feats", low_feats), ("high_feats", high_feats)):
            if tensor is not None and (tensor.ndim != 4 or tensor.shape[0] != preds.shape[0]):
                raise ValueError(f"{name} must have shape ({preds.shape[0]}, C, H, W), got {tuple(tensor.shape)}")
        size = preds.shape[2:]
        if high_feats is not None and high_feats.shape[2:] != size:
            raise ValueError(f"high_feats must have preds' height and width {tuple(size)}, got {tuple(high_feats.shape[2:])}")
        if unlabeled_rois.ndim != 3 or unlabeled_rois.shape[0] != preds.shape[0]:
            raise ValueError(f"unlabeled_rois must have shape ({preds.shape[0]}, H, W), got {tuple(unlabeled_rois.shape)}")
        low_feats = F.interpolate(low_feats.detach(), size=size, mode="bilinear", align_corners=False)
        dtype = torch.promote_types(preds.dtype, torch.float32)  # a half type can't count the pixels of an image
        unlabelled = F.interpolate(unlabeled_rois[:, None].to(dtype), size=size, mode="nearest")
        prob = torch.softmax(preds, 1)
        smooth: Tensor = self.low_filter(prob, low_feats)
        if high_feats is not None:
            smooth = self.high_filter(smooth, high_feats)
        return weight * (unlabelled * (prob - smooth).abs()).sum() / unlabelled.sum().clamp(min=1)

    def extra_repr(self) -> str:
        return f"sigma={self.low_filter.sigma}"
