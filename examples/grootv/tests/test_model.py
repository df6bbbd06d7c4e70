"""The network: shapes, options, memory formats, what timm, torch.compile and torch.export ask of it."""


import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from grootv import VARIANTS, GrootV, costs, fixed_tree

SMALL = dict(channels=8, depths=(1, 2, 1, 1), num_classes=5)


def small(**options):
    torch.manual_seed(0)
    return GrootV(**SMALL | options).eval()


def picture(height=33, width=70, batch=2, channels=3, seed=0):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def gradients(model, x):
    model.zero_grad()
    model(x).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name, parameters, without_head, keys", [
    ("grootv_tiny", 29_958_600, 28_381_280, 333), ("grootv_small", 51_331_624, 49_291_584, 413),
    ("grootv_base", 90_597_096, 87_484_160, 413), ("grootv_large", 202_360_936, 196_512_384, 413)])
def test_parameter_counts(name, parameters, without_head, keys):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert len(model.state_dict()) == keys
    assert costs.count_parameters(model) == (parameters, without_head)
    model.drop_head()
    assert sum(parameter.numel() for parameter in model.parameters()) == without_head


@pytest.mark.parametrize("height, width", [(33, 70), (32, 32), (95, 40)])
def test_stages(height, width):
    stages = small().forward_stages(picture(height, width))
    assert [tuple(stage.shape) for stage in stages] == [
        (2, 8 * 2**i, -(-height // (4 * 2**i)), -(-width // (4 * 2**i))) for i in range(4)]
    assert all(stage.is_contiguous(memory_format=torch.channels_last) for stage in stages)


def test_head():
    model = small()
    x = picture()
    assert model(x).shape == (2, 5)
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size) == (2, 96)
    torch.testing.assert_close(model.head(pooled), model(x))
    without = small(num_classes=0)
    without.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("head.")})
    assert torch.equal(without(x), pooled)
    without.drop_head()
    assert torch.equal(without.forward_features(x), model.forward_features(x))
    assert not any(name.startswith(("head.", "conv_head.")) for name in without.state_dict())


def path_of(tree):
    """The vertices of a chain from its root, or None if it isn't one."""
    after = {parent: child for child, parent in enumerate(tree.parent[0].tolist()) if parent != child}
    path = [tree.root.item()]
    while path[-1] in after:
        path.append(after[path[-1]])
    return path if len(path) == tree.num_vertices else None


@pytest.mark.parametrize("height, width", [(3, 5), (4, 4), (1, 6), (5, 1), (1, 1)])
def test_fixed_trees(height, width):
    assert path_of(fixed_tree("raster", height, width)) == list(range(height * width))
    rows = torch.arange(height * width).view(height, width)
    snake = [row.flip(0) if i % 2 else row for i, row in enumerate(rows)]
    assert path_of(fixed_tree("snake", height, width)) == torch.cat(snake).tolist()
    assert fixed_tree("none", height, width).parent[0].tolist() == list(range(height * width))


def reach(model):
    """Where the first level's features change with the picture's first pixel."""
    x = picture(64, 64, batch=1).requires_grad_()
    other = x.detach().clone()
    other[0, :, 0, 0] += 1e-2
    with torch.no_grad():
        one, two = (model.forward_stages(x)[0] for x in (x, other))
    return (one != two).any(1)[0]


def test_topologies_differ_in_reach_alone():
    models = {topology: small(topology=topology) for topology in ("tree", "raster", "snake", "none")}
    states = [model.state_dict() for model in models.values()]
    assert all(torch.equal(state[key], states[0][key]) for state in states for key in states[0])
    # By itself a pixel hears of the stem's and the block's convolutions only.
    near = reach(models["none"])
    assert near[:3, :3].any() and not near[3:].any() and not near[:, 3:].any()
    # Chains decay fast, but further than that; raster order goes along the first row.
    assert reach(models["raster"])[0, 3:].any()
    assert reach(models["snake"])[0, 3:].any()
    assert reach(models["tree"])[3:].any() or reach(models["tree"])[:, 3:].any()
    outputs = [model.forward_features(picture()) for model in models.values()]
    assert all((a - b).abs().max() > 1e-5 for i, a in enumerate(outputs) for b in outputs[:i])


def used_trees(model, x):
    trees = []
    hooks = [block.TreeSSM.register_forward_hook(lambda module, arguments, output: trees.append(output[1]))
             for level in model.levels for block in level.blocks]
    model(x)
    for hook in hooks:
        hook.remove()
    return trees


def test_trees_per_stage_and_per_block():
    x = picture()
    per_block, per_stage = (used_trees(small(depths=(2, 3, 1, 1), trees=trees), x) for trees in ("block", "stage"))
    assert torch.equal(per_block[0].parent, per_stage[0].parent)  # the first block's is the level's
    assert per_stage[1] is per_stage[0] and per_stage[4] is per_stage[3] is per_stage[2]
    assert not torch.equal(per_block[1].parent, per_block[0].parent)
    raster = used_trees(small(topology="raster", trees="stage"), x)
    assert [tree.parent.shape for tree in raster] == [(1, 162), (1, 45), (1, 45), (1, 15), (1, 6)]


def test_metrics_make_other_trees():
    parents = [used_trees(small(metric=metric), picture())[0].parent for metric in ("cosine", "l2", "l1")]
    assert not any(torch.equal(a, b) for i, a in enumerate(parents) for b in parents[:i])


def test_states():
    model = small(d_state=3)
    assert model.levels[0].blocks[0].TreeSSM.A_logs.shape == (16, 3)
    assert all(gradient.isfinite().all() for gradient in gradients(model, picture()).values())


def test_layer_scale():
    model = small(layer_scale=0.0)
    block = model.levels[1].blocks[0]
    assert block.gamma1.shape == block.gamma2.shape == (16,)
    x = torch.randn(1, 3, 4, 16)
    assert torch.equal(block(x, None)[0], x)
    assert "levels.1.blocks.0.gamma1" in model.state_dict()
    one, none = small(layer_scale=1.0), small()
    assert not one.load_state_dict(none.state_dict(), strict=False).unexpected_keys
    assert torch.equal(one(picture()), none(picture()))


def test_drop_path_grows_with_depth():
    model = small(depths=(1, 2, 1, 1), drop_path_rate=0.4)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for level in model.levels for block in level.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    x = torch.randn(4, 3, 4, 8)
    block = small(drop_path_rate=1 - 1e-7).levels[3].blocks[0].train()
    assert torch.equal(block(x.repeat(1, 1, 1, 8), None)[0], x.repeat(1, 1, 1, 8))  # all of both branches dropped
    assert torch.equal(model(picture()), model(picture()))


def test_checkpointing_keeps_less_and_gives_the_same():
    def run(model):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            torch.manual_seed(1)
            loss = model(picture()).square().sum()
        loss.backward()
        return sum(kept), {name: parameter.grad for name, parameter in model.named_parameters()}

    plain, again = (small(drop_path_rate=0.5, grad_checkpointing=on).train() for on in (False, True))
    kept, wanted = run(plain)
    kept_again, found = run(again)
    assert kept_again < kept / 3
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    again.set_grad_checkpointing(False)
    again.zero_grad()
    assert run(again)[0] > 2 * kept_again


class Scans(TorchDispatchMode):
    """Keeps the channel strides of what treescan's ops are given."""

    def __init__(self):
        super().__init__()
        self.strides = {}

    def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
        if function.namespace == "treescan":
            tensors = [a for a in arguments if isinstance(a, torch.Tensor) and a.ndim >= 3 and a.is_floating_point()]
            self.strides.setdefault(str(function), []).extend(a.stride(1) for a in tensors)
        return function(*arguments, **kwargs or {})


def test_scans_are_given_channels_last():
    model = small(channels=16).train()
    with Scans() as seen:
        model(picture(64, 64)).sum().backward()
    assert {"treescan.scan.default", "treescan.edge_weights.default"} <= set(seen.strides)
    assert len(seen.strides["treescan.scan.default"]) >= 2 * 5
    assert all(stride == 1 for strides in seen.strides.values() for stride in strides)


def memory_order(tensor):
    """The dimensions from the widest stride to the narrowest, but those of size 1."""
    return sorted((d for d, size in enumerate(tensor.sizes) if size > 1), key=lambda d: -tensor.strides[d])


@pytest.mark.parametrize("backward", [False, True])
def test_nothing_but_the_picture_is_transposed(backward):
    """No copy, not even inside an op, puts a feature map's dimensions into another order in memory."""
    model = small(channels=16).train(backward)
    x = picture(64, 96)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, profile_memory=True) as recorded:
        y = model(x)
        if backward:
            y.sum().backward()
    weights = {tuple(parameter.shape) for parameter in model.parameters()}  # which convolutions may want otherwise
    copied, transposed = 0, []
    nodes = list(recorded.profiler.kineto_results.experimental_event_tree())
    while nodes:
        node = nodes.pop()
        nodes.extend(node.children)
        if node.name == "aten::copy_":
            target, source = node.extra_fields.inputs[:2]
            shape = tuple(target.sizes)
            copied += 1
            plain = shape == tuple(source.sizes) and 0 not in source.strides and shape not in weights
            if plain and memory_order(target) != memory_order(source):
                transposed.append(shape)
    assert copied > 5 and transposed == [tuple(x.shape)]


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
@pytest.mark.parametrize("how", ("autocast", "weights"))
def test_half_precision(dtype, how):
    model, x = small(), picture()
    wanted = model(x)
    if how == "weights":
        model, x = model.to(dtype), x.to(dtype)
    with torch.autocast("cpu", dtype, enabled=how == "autocast"):
        found = model(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, atol=0.05 * wanted.abs().max().item(), rtol=0)
    model.train()
    with torch.autocast("cpu", dtype, enabled=how == "autocast"):
        loss = model(x).float().square().sum()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("make, message", [
    (lambda: GrootV(topology="cross"), r"topology must be one of \('tree', 'raster', 'snake', 'none'\), got 'cross'"),
    (lambda: GrootV(trees="layer"), r"trees must be one of \('block', 'stage'\), got 'layer'"),
    (lambda: GrootV(metric="dot"), r"metric must be one of \('cosine', 'l2', 'l1'\), got 'dot'"),
    (lambda: GrootV(channels=7), "channels must be even and at least 2, got 7"),
    (lambda: GrootV(depths=(1, 0)), r"depths must be one or more numbers >= 1, got \(1, 0\)"),
    (lambda: GrootV(drop_rate=1.0), "drop_rate must be at least 0 and below 1, got 1.0"),
    (lambda: GrootV(global_pool="max"), "global_pool must be 'avg', got 'max'"),
    (lambda: small().forward_intermediates(picture(), 0), "the number of last levels, 1 to 4, or name some, got 0"),
    (lambda: small().forward_intermediates(picture(), 5), "the number of last levels, 1 to 4, or name some, got 5"),
    (lambda: small().forward_intermediates(picture(), -1), "the number of last levels, 1 to 4, or name some, got -1"),
    (lambda: GrootV(drop_path_rate=1.5), "drop_path_rate must be at least 0 and below 1, got 1.5"),
    (lambda: fixed_tree("cross", 2, 2), r"topology must be one of \('raster', 'snake', 'none'\), got 'cross'"),
    (lambda: small()(picture(31, 40)), "x must be at least 32 pixels high and wide, got 31 x 40"),
    (lambda: small()(picture(channels=4)), r"x must have shape \(B, 3, H, W\), got \(2, 4, 33, 70\)"),
    (lambda: small()(picture()[0]), r"x must have shape \(B, 3, H, W\), got \(3, 33, 70\)"),
    (lambda: small().reset_classifier(3, "max"), "global_pool must be 'avg', got 'max'"),
    (lambda: small().forward_intermediates(picture(), [4]), r"indices must name some of 4 levels, got \(4,\)"),
    (lambda: small().forward_intermediates(picture(), output_fmt="NLC"), "output_fmt must be 'NCHW' or 'NHWC', got"),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_timm_makes_variants_and_says_that_there_are_no_weights():
    assert set(VARIANTS) <= set(timm.list_models("grootv*"))
    with torch.device("meta"):
        model = timm.create_model("grootv_tiny", num_classes=10, drop_path_rate=0.3, trees="stage", topology="snake")
    assert model.head.out_features == 10 and model.levels[0].trees == "stage" and model.levels[3].topology == "snake"
    assert model.levels[3].blocks[1].drop_path.drop_prob == pytest.approx(0.3)
    data = timm.data.resolve_model_data_config(model)
    assert data["input_size"] == (3, 224, 224) and data["interpolation"] == "bicubic"
    assert timm.models.get_pretrained_cfg("grootv_large").input_size == (3, 384, 384)
    with pytest.raises(ValueError, match=r"grootv.load_original\(path, model\)"):
        timm.create_model("grootv_tiny", pretrained=True)


def test_timm_scripts_make_models():
    """With what train.py, validate.py and benchmark.py pass every model; create_model leaves out what is None."""
    absent = dict(drop_path_rate=None, drop_block_rate=None, global_pool=None, bn_momentum=None, bn_eps=None)
    for options in (dict(absent, in_chans=3, drop_rate=0.0, scriptable=False, checkpoint_path=""),
                    dict(in_chans=1, global_pool=None, scriptable=False), dict(drop_rate=0.5, global_pool="avg")):
        model = timm.create_model("grootv_tiny", **SMALL, **options).eval()
        x = picture(channels=options.get("in_chans", 3))
        features = model.forward_features(x)
        wanted = model.forward_head(features)
        assert torch.equal(model.forward_head(features), wanted) and torch.equal(model(x), wanted)
    for part in model.conv_head.modules():
        part.training = False  # so that nothing is left to chance but the dropout
    model.training = True
    pooled = model.forward_head(features, pre_logits=True)
    kept = pooled != 0
    assert 0.3 < kept.float().mean() < 0.7
    model.training = False
    torch.testing.assert_close(pooled[kept], 2 * model.forward_head(features, pre_logits=True)[kept])


def test_timm_features():
    options = dict(SMALL, features_only=True)
    x = picture()
    torch.manual_seed(0)
    features = timm.create_model("grootv_tiny", **options).eval()
    assert features.feature_info.channels() == [8, 16, 32, 64] and features.feature_info.reduction() == [4, 8, 16, 32]
    wanted = GrootV(**SMALL).eval()
    wanted.load_state_dict(features.state_dict(), strict=False)
    names = [name for name in features.state_dict() if "head" in name]
    assert not names
    stages = wanted_stages(features, x)
    assert all(torch.equal(a, b) for a, b in zip(features(x), stages, strict=True))
    chosen = timm.create_model("grootv_tiny", out_indices=(0, -2), **options)
    assert [tuple(f.shape[1:]) for f in chosen(x)] == [(8, 9, 18), (32, 3, 5)]
    assert len(chosen.model.levels) == 3 and chosen.model.levels[-1].downsample is None
    sum(f.sum() for f in chosen(x)).backward()
    assert all(parameter.grad is not None for parameter in chosen.parameters())


def wanted_stages(features, x):
    whole = small()
    whole.drop_head()
    whole.load_state_dict(features.model.state_dict())
    return whole.forward_stages(x)


def test_timm_groups_and_decay():
    model = small()
    model.reset_classifier(7)
    assert model(picture()).shape == (2, 7) and model.get_classifier().out_features == 7
    model.reset_classifier(0)
    assert model(picture()).shape == (2, 96)
    last, chosen = model.forward_intermediates(picture(), [1, 3], output_fmt="NHWC")
    assert last.shape == (2, 64, 2, 3) and [f.shape[-1] for f in chosen] == [16, 64]
    # Deeper parameters learn faster, and the rates of the state space aren't decayed.
    model = small()
    names = {parameter: name for name, parameter in model.named_parameters()}
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    groups = {names[parameter]: group for group in optimizer.param_groups for parameter in group["params"]}
    deeper = ("patch_embed.conv1", "levels.0.blocks.0.mlp.fc1", "levels.1.blocks.0.mlp.fc1",
              "levels.1.blocks.1.mlp.fc1", "levels.3.blocks.0.mlp.fc1", "head")
    order = [groups[name + ".weight"]["lr_scale"] for name in deeper]
    assert order == sorted(order) and len(set(order)) >= 5
    decayed = {name for name, group in groups.items() if group["weight_decay"]}
    assert "levels.0.blocks.0.mlp.fc1.weight" in decayed
    assert not any(name.endswith((".A_logs", ".Ds", ".bias")) for name in decayed)


def test_compilation():
    torch._dynamo.reset()
    model = small(depths=(1,), trees="stage")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = picture(33, 36)
    wanted = gradients(model, x)
    for name, gradient in gradients(compiled, x).items():
        torch.testing.assert_close(gradient, wanted[name.removeprefix("_orig_mod.")])


@pytest.mark.parametrize("topology, depths", [("tree", (1, 1)), ("snake", (1,)), ("none", (1,))])
def test_export_of_any_size(topology, depths):
    model = small(topology=topology, depths=depths)
    height, width = (torch.export.Dim(name, min=32, max=512) for name in ("height", "width"))
    program = torch.export.export(model, (picture(64, 72),), dynamic_shapes=({2: height, 3: width},))
    for sizes in ((64, 72), (33, 95)):
        torch.testing.assert_close(program.module()(picture(*sizes)), model(picture(*sizes)))
