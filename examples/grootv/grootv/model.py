"""The GrootV network: a pyramid of blocks whose state space scans run along a tree of the picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.ops import Permute

from treescan import Tree
from treescan.nn import TreeSSM

TOPOLOGIES = ("tree", "raster", "snake", "none")
TREES = ("block", "stage")
METRICS = ("cosine", "l2", "l1")
STRIDE = 32

# What the published models have in common with ours; the last, which the paper only announces, is our own choice: the
# depths of -S and -B, and the step in width from B to L of the families that it is compared with.
VARIANTS = {
    "grootv_tiny": dict(channels=80, depths=(2, 2, 9, 2), drop_path_rate=0.1),
    "grootv_small": dict(channels=96, depths=(2, 2, 13, 2), drop_path_rate=0.3),
    "grootv_base": dict(channels=128, depths=(2, 2, 13, 2), drop_path_rate=0.5),
    "grootv_large": dict(channels=192, depths=(2, 2, 13, 2), drop_path_rate=0.5),
}


def fixed_tree(topology: str, height: int, width: int, device: torch.device | None = None) -> Tree:
    """The tree over height x width pixels of a topology that doesn't depend on them, of batch size 1.

        "raster"  a chain in reading order
        "snake"   a chain in reading order, every other row backwards: neighbours in it are neighbours in the picture
        "none"    every pixel by itself: a forest of height · width roots, along which nothing flows

    Raises ValueError for another topology.

    >>> fixed_tree("snake", 2, 3).parent
    tensor([[0, 0, 1, 4, 5, 2]], dtype=torch.int32)
    """
    vertex = torch.arange(height * width, dtype=torch.int32, device=device)
    if topology == "none":
        return Tree.from_parents(vertex[None], forest=True)
    before = (vertex - 1).clamp(min=0)
    if topology == "raster":
        return Tree.from_parents(before[None])
    if topology == "snake":
        backwards = vertex // width % 2 == 1
        at_end = vertex % width == width - 1  # where a backwards row begins, under the end of the row above
        forwards = torch.where(vertex % width == 0, (vertex - width).clamp(min=0), before)
        parent = torch.where(backwards, torch.where(at_end, vertex - width, vertex + 1), forwards)
        return Tree.from_parents(parent[None])
    raise ValueError(f"topology must be one of {TOPOLOGIES[1:]}, got {topology!r}")


def _norm(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, eps=1e-6)


class Stem(nn.Module):
    """A picture (B, in_chans, H, W) in channels-last memory to (B, ⌈H/4⌉, ⌈W/4⌉, channels)."""

    def __init__(self, in_chans: int, channels: int):
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(in_chans, half, 3, stride=2, padding=1)
        self.norm1 = nn.Sequential(Permute([0, 2, 3, 1]), _norm(half), Permute([0, 3, 1, 2]))
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(half, channels, 3, stride=2, padding=1)
        self.norm2 = nn.Sequential(Permute([0, 2, 3, 1]), _norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))


class Downsample(nn.Module):
    """(B, H, W, C) to (B, ⌈H/2⌉, ⌈W/2⌉, 2C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.Sequential(Permute([0, 2, 3, 1]), _norm(2 * channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)))


class Block(nn.Module):
    """x += gamma1 · TreeSSM(norm(x)), then x += gamma2 · MLP(norm(x)), on (B, H, W, C); returns x and the tree."""

    def __init__(self, channels: int, mlp_ratio: float, d_state: int, metric: str, drop_path: float,
                 layer_scale: float | None):
        super().__init__()
        self.norm1 = nn.Sequential(_norm(channels))
        self.TreeSSM = TreeSSM(channels, d_state, metric=metric)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.Sequential(_norm(channels))
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        self.gamma1 = self.gamma2 = None
        if layer_scale is not None:
            self.gamma1 = nn.Parameter(torch.full((channels,), float(layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(layer_scale)))

    def forward(self, x: Tensor, tree: Tree | None) -> tuple[Tensor, Tree]:
        y, tree = self.TreeSSM(self.norm1(x), tree, return_tree=True)
        x = x + self.drop_path(y if self.gamma1 is None else self.gamma1 * y)
        y = self.mlp(self.norm2(x))
        return x + self.drop_path(y if self.gamma2 is None else self.gamma2 * y), tree


class Level(nn.Module):
    """Blocks of one resolution, their norm, and the way down to the next level."""

    def __init__(self, blocks: Sequence[Block], channels: int, topology: str, trees: str, downsample: bool):
        super().__init__()
        self.topology, self.trees, self.grad_checkpointing = topology, trees, False
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.Sequential(_norm(channels))
        self.downsample = Downsample(channels) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same, before the downsampling."""
        tree = None if self.topology == "tree" else fixed_tree(self.topology, x.shape[1], x.shape[2], x.device)
        for block in self.blocks:
            if self.grad_checkpointing and self.training:
                x, used = checkpoint(block, x, tree, use_reentrant=False)
            else:
                x, used = block(x, tree)
            if self.trees == "stage":
                tree = used
        return self.norm(x)


class GrootV(nn.Module):
    """A pyramid vision backbone whose blocks propagate state along a spanning tree of their own features.

    Arguments:
        channels: of the first level, even; level i has channels · 2^i.
        depths: blocks per level.
        num_classes: outputs of the classifier; 0 for the pooled features.
        layer_scale: the initial value of a learnt factor per channel on each residual branch; None for no factor.
        drop_path_rate: of the last block; the others' grow linearly towards it.
        drop_rate: of the dropout before the classifier.
        global_pool: "avg", the only way of pooling there is.
        mlp_ratio: the MLP's hidden width by the block's width.
        d_state: states per inner channel.
        in_chans: channels of the picture.
        topology: what the scans run along: "tree", the minimum spanning tree of each block's features; "raster" or
            "snake", a chain of pixels; "none", nothing: every pixel by itself. The parameters are the same.
        trees: "block", a tree for each block, as published; or "stage", the tree of each level's first block for all of
            the level.
        metric: the cost that trees minimise: "cosine", "l2" or "l1".
        grad_checkpointing: whether to compute blocks anew in the backward pass instead of keeping what is in them.

    `forward(x)` takes (B, in_chans, H, W), sides of at least 32 pixels, and returns (B, num_classes).
    `forward_stages(x)` returns the levels' features, (B, C_i, H_i, W_i) with strides 4, 8, 16, ..., in channels-last
    memory; sides that a stride doesn't divide are rounded up.

    Features stay in channels-last memory from the stem to the end. `.to(memory_format=torch.channels_last)` puts the
    convolutions' weights into that order too, which saves bringing them there on every call.

    Parameter names and shapes are the original's, so its checkpoints load: see `load_original`.

    Raises ValueError for an unknown option, or a picture that is too small or has other channels.

    >>> model = GrootV(16, (1, 1, 1, 1), num_classes=10)
    >>> model(torch.zeros(2, 3, 32, 40)).shape
    torch.Size([2, 10])
    >>> [tuple(stage.shape[1:]) for stage in model.forward_stages(torch.zeros(1, 3, 32, 40))]
    [(16, 8, 10), (32, 4, 5), (64, 2, 3), (128, 1, 2)]

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.3 and appendix.
    """

    def __init__(self, channels: int = 80, depths: Sequence[int] = (2, 2, 9, 2), num_classes: int = 1000, *,
                 layer_scale: float | None = None, drop_path_rate: float = 0.1, drop_rate: float = 0.0,
                 mlp_ratio: float = 4.0, d_state: int = 1, in_chans: int = 3, global_pool: str = "avg", topology: str = "tree", trees: str = "block",
                 metric: str = "cosine", grad_checkpointing: bool = False):
        super().__init__()
        for name, value, known in (("topology", topology, TOPOLOGIES), ("trees", trees, TREES),
                                   ("metric", metric, METRICS)):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}, got {value!r}")
        if channels < 2 or channels % 2:
            raise ValueError(f"channels must be even and at least 2, got {channels}")
        if not depths or min(depths) < 1:
            raise ValueError(f"depths must be one or more numbers >= 1, got {depths}")
        for name, rate in (("drop_path_rate", drop_path_rate), ("drop_rate", drop_rate)):
            if not 0 <= rate < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {rate}")
        _check_pooling(global_pool)
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        widths = [channels * 2**i for i in range(len(depths))]
        self.feature_info = [dict(num_chs=width, reduction=4 * 2**i, module=f"levels.{i}")
                             for i, width in enumerate(widths)]
        self.num_features, self.head_hidden_size = widths[-1], int(1.5 * widths[-1])

        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        self.patch_embed = Stem(in_chans, channels)
        self.levels = nn.ModuleList(
            Level([Block(width, mlp_ratio, d_state, metric, next(rates), layer_scale) for _ in range(depth)], width,
                  topology, trees, downsample=width != widths[-1])
            for width, depth in zip(widths, depths))
        self.conv_head = nn.Sequential(nn.Conv2d(self.num_features, self.head_hidden_size, 1, bias=False),
                                       nn.Sequential(nn.BatchNorm2d(self.head_hidden_size)), nn.GELU())
        self.head = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        self.apply(_initialise)
        self.set_grad_checkpointing(grad_checkpointing)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """The last level's features, (B, C, H/32, W/32)."""
        return self.forward_stages(x)[-1]

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """Each level's features after its norm, (B, C_i, H_i, W_i) in channels-last memory."""
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise ValueError(f"x must have shape (B, {self.in_chans}, H, W), got {tuple(x.shape)}")
        if x.shape[2] < STRIDE or x.shape[3] < STRIDE:
            raise ValueError(f"x must be at least {STRIDE} pixels high and wide, got {x.shape[2]} x {x.shape[3]}")
        x = self.patch_embed(x.contiguous(memory_format=torch.channels_last))
        stages = []
        for level in self.levels:
            x = level(x)
            stages.append(x.permute(0, 3, 1, 2))
            if level.downsample is not None:
                x = level.downsample(x)
        return stages

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits, or with `pre_logits` the pooled features, of what `forward_features` returned."""
        x = F.dropout(self.conv_head(x).mean((2, 3)), self.drop_rate, self.training)
        return x if pre_logits else self.head(x)

    def drop_head(self) -> None:
        """Takes the classifier and its convolution away for good: what is left serves dense prediction."""
        self.num_classes, self.conv_head, self.head = 0, nn.Identity(), nn.Identity()
        self.head_hidden_size = self.num_features

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether to compute blocks anew in the backward pass instead of keeping what is in them."""
        for level in self.levels:
            level.grad_checkpointing = enable

    # What timm asks of its models.

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier, or none for 0 classes."""
        if global_pool is not None:
            _check_pooling(global_pool)
        weight = self.patch_embed.conv1.weight
        self.num_classes = num_classes
        self.head = nn.Linear(self.head_hidden_size, num_classes).to(weight) if num_classes else nn.Identity()
        self.head.apply(_initialise)

    def no_weight_decay(self) -> set[str]:
        """Parameters that aren't decayed, whatever their shape: the rates and skips of the state space."""
        return {name for name, _ in self.named_parameters() if name.endswith((".A_logs", ".Ds"))}

    def group_matcher(self, coarse: bool = False) -> dict:
        """How parameters make up layers, for learning rates that decay over depth."""
        blocks = r"^levels\.(\d+)" if coarse else [(r"^levels\.(\d+)\.(?:norm|downsample)", (0,)),
                                                  (r"^levels\.(\d+)\.blocks\.(\d+)", None)]
        return dict(stem=r"^patch_embed", blocks=blocks)

    def _taken(self, indices: int | Sequence[int] | None) -> list[int]:
        levels = range(len(self.levels))
        if indices is None:
            return list(levels)
        if isinstance(indices, int):
            if not 1 <= indices <= len(levels):
                raise ValueError(f"indices must be the number of last levels, 1 to {len(levels)}, or name some, got {indices}")
            return list(levels[-indices:])
        if not indices or any(not -len(levels) <= i < len(levels) for i in indices):
            raise ValueError(f"indices must name some of {len(levels)} levels, got {tuple(indices)}")
        return [levels[i] for i in indices]

    def forward_intermediates(self, x: Tensor, indices: int | list[int] | None = None, norm: bool = False,
                              stop_early: bool = False, output_fmt: str = "NCHW",
                              intermediates_only: bool = False) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Features of the levels that `indices` names; unless `intermediates_only` the last level's before them."""
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt must be 'NCHW' or 'NHWC', got {output_fmt!r}")
        taken = self._taken(indices)
        stages = self.forward_stages(x)
        chosen = [stages[i] if output_fmt == "NCHW" else stages[i].permute(0, 2, 3, 1) for i in taken]
        return chosen if intermediates_only else (stages[-1], chosen)

    def prune_intermediate_layers(self, indices: int | list[int] = 1, prune_norm: bool = False,
                                  prune_head: bool = True) -> list[int]:
        """Drops the levels after the last that `indices` names, and the head."""
        taken = self._taken(indices)
        last = max(taken)
        self.levels = self.levels[:last + 1]
        self.levels[-1].downsample = None
        self.num_features = self.feature_info[last]["num_chs"]
        self.drop_head()
        return taken


def _check_pooling(global_pool: str) -> None:
    if global_pool != "avg":
        raise ValueError(f"global_pool must be 'avg', got {global_pool!r}")


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
