"""Labels spread as the filter says, and further along trees than along chains."""

import numpy as np
import pytest
import torch

from grootv import propagation
from grootv.composites import Composites
from grootv.propagation import marked_composites, mean_iou, propagate, study


def _orders(height, width):
    grid = np.arange(height * width).reshape(height, width)
    snake = grid.copy()
    snake[1::2] = snake[1::2, ::-1]
    return {"raster": [grid.ravel()], "snake": [snake.ravel()], "cross": [grid.ravel(), grid.T.ravel()]}


@pytest.mark.parametrize("topology", ["raster", "snake", "cross"])
def test_chains_are_what_they_say(topology):
    height, width = 3, 5
    pictures = torch.rand(2, 3, height, width)
    marks = (torch.rand(2, 4, height, width) < 0.3).float()
    expected = np.zeros((2, 4, height * width))
    for order in _orders(height, width)[topology]:
        for b in range(2):
            colours = pictures[b].flatten(1).double().numpy()[:, order]
            cost = ((colours[:, 1:] - colours[:, :-1]) ** 2).sum(0) / 0.3**2
            place = np.concatenate([[0], cost.cumsum()])
            affinity = np.exp(-abs(place[:, None] - place))
            expected[b][:, order] += marks[b].flatten(1).double().numpy()[:, order] @ affinity
    found = propagate(pictures, marks, topology, 0.3).flatten(2).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_tree_stays_inside_a_region():
    """A spiral on a different ground: along the tree a label fills the whole of it and nothing else."""
    spiral = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]).float()
    marks = torch.zeros(1, 2, 5, 5)
    marks[0, 1, 2, 2] = marks[0, 0, 1, 0] = 1
    pictures = spiral.expand(1, 3, 5, 5)
    assert torch.equal(propagate(pictures, marks, "tree", 0.5).argmax(1)[0], spiral.long())
    assert not torch.equal(propagate(pictures, marks, "raster", 0.5).argmax(1)[0], spiral.long())


def test_nearest_seed():
    marks = torch.zeros(1, 3, 2, 7)
    marks[0, 2, 0, 0] = marks[0, 1, 1, 6] = 1
    found = propagate(torch.rand(1, 3, 2, 7), marks, "nearest seed")
    assert found.sum(1).eq(1).all() and found.argmax(1)[0].tolist() == [[2, 2, 2, 2, 1, 1, 1], [2, 2, 2, 1, 1, 1, 1]]


def test_mean_iou_counts_what_nothing_reached_as_wrong():
    labels = torch.tensor([[[0, 0, 1, 1]]])
    received = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 1]]]), 3).movedim(-1, 1).double()
    assert mean_iou(received, labels) == pytest.approx((1 / 2 + 2 / 3) / 2)
    received[..., 3] = 0
    assert mean_iou(received, labels) == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_marks():
    composites = Composites(5, (40, 33))
    pictures, labels, marks = marked_composites(composites, 3)
    assert pictures.shape == (5, 3, 40, 33) and marks.shape == (5, 11, 40, 33)
    for index in range(5):
        assert (labels[index][marks[index].any(0)] == marks[index].argmax(0)[marks[index].any(0)]).all()
        assert marks[index, 0].sum() == 12 and marks[index, 1:].sum() == 3 * len(composites[index].labels)
    assert torch.equal(marks, marked_composites(composites, 3)[2])


def test_tree_against_the_others():
    result = study(60, (0, 1), tuning=30)
    mean = {topology: np.mean(row["miou"]) for topology, row in result["rows"].items()}
    assert mean["tree"] >= 0.75 and mean["tree"] >= 2.5 * max(mean["raster"], mean["snake"], mean["cross"]), mean


def test_unknown_topology():
    with pytest.raises(ValueError, match="topology must be one of 'tree', .*got 'star'"):
        propagate(torch.rand(1, 3, 2, 2), torch.rand(1, 2, 2, 2), "star")
    assert set(propagation.TOPOLOGIES) == {"tree", "raster", "snake", "cross", "nearest seed"}
