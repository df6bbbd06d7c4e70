"""Training-free label propagation: what the order of a scan alone is worth, with nothing learned in the way.

A few pixels of each composite carry their label. The same filter spreads them over the picture along different
topologies, and every pixel takes the label of which most arrives. Only the topology differs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from treescan import Tree, build_tree, tree_scan

from .composites import Composites
from .model import fixed_tree

TOPOLOGIES = ("tree", "raster", "snake", "cross", "nearest seed")
SIGMAS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def _trees(topology: str, pictures: Tensor) -> list[Tree]:
    """What the labels travel along; the results of several are added."""
    height, width = pictures.shape[2:]
    if topology == "tree":
        return [build_tree(pictures, metric="l2")]
    if topology == "cross":
        pixel = torch.arange(height * width)
        above = torch.where(pixel < width, pixel - 1 + width * (height - 1), pixel - width)
        above[0] = 0
        return [fixed_tree("raster", height, width), Tree.from_parents(above[None])]
    return [fixed_tree(topology, height, width)]


def propagate(pictures: Tensor, marks: Tensor, topology: str, sigma: float = 0.1) -> Tensor:
    """Spreads labels from a few pixels over the whole picture.

        w[v] = exp(-|p[v] - p[parent of v]|² / σ²),  y = both(marks; w)

    along a tree or a chain, for "cross" the sum over a chain along the rows and one along the columns. (Each chain is run
    through in both directions, so these are the four directions of a cross scan.) "nearest seed" looks at the distance in
    the plane and not at the picture.

    Arguments:
        pictures: p, (B, C, H, W) float, colours from 0 to 1.
        marks: (B, K, H, W), 1 where a pixel is known to have a label, 0 elsewhere.
        topology: "tree" (the minimum spanning tree of squared colour differences), "raster", "snake" (every second row
            backwards), "cross" or "nearest seed".
        sigma: the colour difference that lets 1/e through.

    Returns (B, K, H, W) float64, how much of each label arrives. All of them are 0 where less arrives than float64 can
    hold. Raises ValueError for another topology.

    >>> row = torch.tensor([0.0, 0.1, 0.9, 1.0]).expand(1, 3, 1, 4)
    >>> marks = torch.tensor([[[[1.0, 0, 0, 0]], [[0, 0, 0, 1.0]]]])
    >>> propagate(row, marks, "tree", 0.2).argmax(1).tolist()
    [[[0, 0, 1, 1]]]

    Source: Song et al., "Learnable Tree Filter for Structure-preserving Feature Transform", section 3.1, for the filter.
    """
    if topology not in TOPOLOGIES:
        raise ValueError(f"topology must be one of {', '.join(map(repr, TOPOLOGIES))}, got {topology!r}")
    marks, pictures = marks.double(), pictures.to(torch.promote_types(pictures.dtype, torch.float32))
    if topology == "nearest seed":
        return _nearest(marks)
    flat, received = pictures.flatten(2), torch.zeros_like(marks)
    for tree in _trees(topology, pictures):
        parent = tree.parent.long()[:, None].expand(flat.shape)
        squared = (flat - flat.gather(2, parent)).square().sum(1, keepdim=True)
        weights = torch.exp(-squared.double() / sigma**2).view(len(flat), 1, *marks.shape[2:])
        received += tree_scan(marks, weights, tree)
    return received


def _nearest(marks: Tensor) -> Tensor:
    height, width = marks.shape[2:]
    place = torch.cartesian_prod(torch.arange(height), torch.arange(width)).double()
    nearest = []
    for item in marks.flatten(2):
        label, pixel = item.nonzero().T
        nearest.append(label[torch.cdist(place, place[pixel]).argmin(1)])
    return torch.nn.functional.one_hot(torch.stack(nearest), marks.shape[1]).mT.view_as(marks).double()


def marked_composites(composites: Composites, seed: int, *, per_object: int = 3, background: int = 12):
    """Pictures (B, 3, H, W), labels (B, H, W) and marks (B, K, H, W) on random pixels of each object and the background."""
    random = np.random.default_rng(seed)
    pictures, labels, marks = [], [], []
    for index in range(len(composites)):
        item = composites[index]
        pictures.append(item.image)
        labels.append(item.semantic)
        marked = np.zeros((1 + len(composites.classes), *composites.size), np.float32)
        regions = [(item.semantic == 0, 0, background)] + [(mask, 1 + label, per_object)
                                                           for mask, label in zip(item.masks, item.labels)]
        for region, label, count in regions:
            pixels = np.flatnonzero(region)
            marked[label].reshape(-1)[random.choice(pixels, min(count, len(pixels)), replace=False)] = 1
        marks.append(marked)
    pictures = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return pictures, torch.from_numpy(np.stack(labels)).long(), torch.from_numpy(np.stack(marks))


def mean_iou(received: Tensor, labels: Tensor) -> float:
    """The mean over classes of their intersection over union in all pictures. A pixel that nothing reached is wrong."""
    classes = received.shape[1]
    most, predicted = received.max(1)
    predicted = torch.where(most > 0, predicted, classes)
    counts = torch.bincount((labels * (classes + 1) + predicted).flatten(), minlength=classes * (classes + 1))
    counts = counts.view(classes, classes + 1).double()
    right = counts[:, :classes].diagonal()
    union = counts.sum(1) + counts[:, :classes].sum(0) - right
    return (right / union)[union > 0].mean().item()


def study(count: int = 300, seeds: tuple[int, ...] = (0, 1, 2, 3, 4), *, size: int = 64, source: str = "digits",
          data: str | Path | None = None, tuning: int = 100, progress=lambda text: None) -> dict:
    """Mean IoU of each topology over several draws of composites and marks.

    Every topology gets the σ that is best for it, chosen among `SIGMAS` on composites that share neither objects nor
    pixels of photographs with those that it is measured on.

    Arguments:
        count, seeds, size: composites for each seed, the seeds, their side.
        source, data: as for `composites.Composites`.
        tuning: composites to choose σ on.
        progress: called with a line of text now and then.

    Returns {"count": ..., "seeds": ..., "size": ..., "source": ..., "rows": {topology: {"sigma": σ or None, "miou": [one for
    each seed]}}}.
    """
    def draw(number, split, seed):
        return marked_composites(Composites(number, (size, size), source=source, split=split, seed=seed, data=data), seed)

    def measure(drawn, topology, sigma):
        pictures, labels, marks = drawn
        parts = zip(pictures.split(50), marks.split(50))
        return mean_iou(torch.cat([propagate(*part, topology, sigma) for part in parts]), labels)

    rows = {}
    drawn = draw(tuning, "train", 0)
    for topology in TOPOLOGIES:
        progress(f"label propagation: choosing σ for {topology}")
        sigma = None
        if topology != "nearest seed":
            sigma = max(SIGMAS, key=lambda value: measure(drawn, topology, value))
        rows[topology] = {"sigma": sigma, "miou": []}
    for seed in seeds:
        progress(f"label propagation: seed {seed}")
        drawn = draw(count, "val", seed)
        for topology, row in rows.items():
            row["miou"].append(measure(drawn, topology, row["sigma"] or 1.0))
    return {"count": count, "seeds": list(seeds), "size": size, "source": source, "rows": rows}
