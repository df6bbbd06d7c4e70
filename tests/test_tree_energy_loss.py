"""nn.TreeEnergyLoss against its definition, pair by pair of pixels."""

import pytest
import torch
from torch.nn import functional as F

from treescan import grid_graph, reference
from treescan.nn import TreeEnergyLoss


def filtered(values, features, sigma):
    """y[i] = Σ_j S(i, j) x[j] / Σ_j S(i, j), with S the product of exp(-distance / sigma) along the tree's path i..j."""
    graph = grid_graph(*features.shape[2:])
    tree = reference.minimum_spanning_tree(graph, reference.edge_weights(features.detach(), graph, "l2"))
    x, f = values.flatten(2), features.flatten(2)
    items = []
    for item in range(len(x)):
        parent, depth = tree.parent[item].tolist(), tree.depth[item].tolist()
        rows = []
        for i in range(x.shape[2]):
            similarity = []
            for j in range(x.shape[2]):
                a, b, distance = i, j, 0
                while a != b:
                    if depth[a] < depth[b]:
                        a, b = b, a
                    distance = distance + (f[item, :, a] - f[item, :, parent[a]]).square().sum()
                    a = parent[a]
                similarity.append(torch.exp(torch.as_tensor(-distance / sigma, dtype=x.dtype)))
            similarity = torch.stack(similarity)
            rows.append((x[item] * similarity).sum(1) / similarity.sum())
        items.append(torch.stack(rows, 1))
    return torch.stack(items).reshape(values.shape)


def plain_loss(preds, low_feats, high_feats, unlabeled_rois, weight, sigma):
    size = preds.shape[2:]
    low_feats = F.interpolate(low_feats, size, mode="bilinear", align_corners=False).detach()
    unlabelled = F.interpolate(unlabeled_rois[:, None].to(preds.dtype), size, mode="nearest")
    prob = preds.softmax(1)
    smooth = filtered(prob, low_feats, sigma)
    if high_feats is not None:
        smooth = filtered(smooth, high_feats, 1.0)
    total = sum((m * (p - q).abs().sum(0)).sum() for m, p, q in zip(unlabelled[:, 0], prob, smooth))
    return weight * total / unlabelled.sum()


@pytest.mark.parametrize("high", (True, False))
@pytest.mark.parametrize("scale", (1, 2))
def test_loss_and_gradients_follow_the_definition(high, scale):
    preds = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    image = torch.rand(2, 3, 3 * scale, 4 * scale, dtype=torch.float64, requires_grad=True)
    high_feats = torch.rand(2, 5, 3, 4, dtype=torch.float64, requires_grad=True) if high else None
    rois = torch.rand(2, 3 * scale, 4 * scale) < 0.6
    inputs = [preds] + [high_feats] * high
    loss = TreeEnergyLoss(sigma=0.1)(preds, image, high_feats, rois, 0.4)
    expected = plain_loss(preds, image, high_feats, rois, 0.4, 0.1)
    torch.testing.assert_close(loss, expected)
    for got, wanted in zip(torch.autograd.grad(loss, inputs, retain_graph=True), torch.autograd.grad(expected, inputs)):
        torch.testing.assert_close(got, wanted)
    assert torch.autograd.grad(loss, image, allow_unused=True) == (None,)


def test_nothing_unlabelled_is_no_loss():
    preds = torch.randn(1, 2, 4, 5, requires_grad=True)
    loss = TreeEnergyLoss()(preds, torch.rand(1, 3, 4, 5), None, torch.zeros(1, 4, 5), 1.0)
    loss.backward()
    assert loss == 0 and (preds.grad == 0).all()


@pytest.mark.parametrize(("shapes", "message"), [
    (((1, 2, 4, 5), (2, 3, 4, 5), None, (1, 4, 5)), r"low_feats .*\(1, C, H, W\), got \(2, 3, 4, 5\)"),
    (((1, 2, 4, 5), (1, 3, 4, 5), (1, 3, 4, 4), (1, 4, 5)), r"high_feats .*\(4, 5\), got \(4, 4\)"),
    (((1, 2, 4, 5), (1, 3, 4, 5), None, (1, 1, 4, 5)), r"unlabeled_rois .*\(1, H, W\), got \(1, 1, 4, 5\)")])
def test_errors(shapes, message):
    with pytest.raises(ValueError, match=message):
        TreeEnergyLoss()(*(None if shape is None else torch.rand(shape) for shape in shapes))
    with pytest.raises(ValueError, match="sigma must be > 0"):
        TreeEnergyLoss(sigma=0)
