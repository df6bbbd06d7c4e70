"""One small model of all that builds trees: checkpointing, torch.compile, export and ahead-of-time compilation."""

import shutil

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import treescan
from treescan.nn import TreeEnergyLoss


class Model(torch.nn.Module):
    """An image and a sequence in, a loss and a sequence out."""

    def __init__(self):
        super().__init__()
        self.pixels = torch.nn.Conv2d(3, 4, 1)
        self.tokens = torch.nn.Conv1d(5, 5, 1)
        self.log_rates = torch.nn.Parameter(torch.zeros(5, 2))
        self.loss = TreeEnergyLoss(sigma=0.5)

    def see(self, image, mask):
        features = self.pixels(image)
        tree = treescan.build_tree(features, mask=mask, root=1)
        preds = treescan.tree_scan(features, features.sigmoid(), tree)
        return preds + treescan.tree_scan(features, features.sigmoid(), "grid", direction="up", mask=mask)

    def read(self, sequence, starts):
        features = self.tokens(sequence)
        decay = features.sigmoid()
        causal = treescan.causal_tree(features, window=2)
        packed = treescan.causal_tree(features[:1], cu_seqlens=starts)
        spanning = treescan.packed_tree(features[:1], starts, window=2)
        y = treescan.tree_scan(features, decay, causal, direction="down")
        y = y + treescan.selective_tree_scan(features, features, -self.log_rates.exp(), features[:, :2], features[:, 2:4], causal,
                                             delta_softplus=True)
        return y + sum(treescan.tree_scan(features[:1], decay[:1], tree, direction="down") for tree in (packed, spanning))

    def forward(self, image, mask, sequence, starts):
        preds = self.see(image, mask)
        return self.loss(preds, image, preds, mask, 0.4), self.read(sequence, starts)


def inputs(height=4, width=5, length=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, height, width, generator=generator)
    sequence = torch.randn(2, 5, length, generator=generator)
    return image, image[:, 0] > 0.3, sequence, torch.tensor([0, 3, length], dtype=torch.int32)


def outputs_and_gradients(call, model, arguments):
    arguments = [a.clone().requires_grad_(a.is_floating_point()) for a in arguments]
    loss, y = call(*arguments)
    wanted = [arguments[0], arguments[2], *model.parameters()]
    return loss, y, *torch.autograd.grad(loss + y.square().mean(), wanted)


@pytest.mark.parametrize("reentrant", (False, True))
def test_checkpointing(reentrant):
    model = Model()
    image, *rest = inputs()

    def gradients(run):
        image.grad = None
        model.zero_grad()
        loss, y = run(image.requires_grad_(), *rest)
        (loss + y.square().mean()).backward()
        return [image.grad, *(parameter.grad for parameter in model.parameters())]

    wanted = gradients(model)
    again = gradients(lambda *arguments: checkpoint(model, *arguments, use_reentrant=reentrant))
    assert all(torch.equal(a, b) for a, b in zip(again, wanted))


def test_compilation_with_dynamic_shapes():
    torch._dynamo.reset()
    model = Model()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for again, sizes in enumerate(((7, 6, 9), (8, 11, 12))):
        arguments = inputs(*sizes)
        with torch._dynamo.config.patch(error_on_recompile=bool(again)):
            found = outputs_and_gradients(compiled, model, arguments)
        for a, b in zip(found, outputs_and_gradients(model, model, arguments)):
            torch.testing.assert_close(a, b)


@pytest.mark.skipif(not shutil.which("c++"), reason="inductor needs a C++ compiler")
def test_compilation_with_inductor():
    torch._dynamo.reset()
    model = Model()
    compiled = torch.compile(model.read, fullgraph=True)
    found, wanted = (run(*inputs()[2:]) for run in (compiled, model.read))
    torch.testing.assert_close(found, wanted)
    parameters = list(model.tokens.parameters())
    for a, b in zip(*(torch.autograd.grad(y.square().mean(), parameters) for y in (found, wanted))):
        torch.testing.assert_close(a, b)


def exported(model):
    height, width, length = (torch.export.Dim(name, min=4, max=64) for name in ("height", "width", "length"))
    shapes = {"image": {2: height, 3: width}, "mask": {1: height, 2: width}, "sequence": {2: length}, "starts": {}}
    return torch.export.export(model, inputs(8, 9, 20), dynamic_shapes=shapes)


def test_export_of_any_size():
    model = Model().eval()
    program = exported(model)
    for sizes in ((8, 9, 20), (5, 7, 11)):
        for a, b in zip(program.module()(*inputs(*sizes)), model(*inputs(*sizes))):
            torch.testing.assert_close(a, b)


@pytest.mark.skipif(not shutil.which("c++"), reason="AOTInductor needs a C++ compiler")
def test_ahead_of_time_compilation(tmp_path):
    model = Model().eval()
    options = {"aot_inductor.compile_wrapper_opt_level": "O0"}  # compiling takes most of the time
    package = torch._inductor.aoti_compile_and_package(exported(model), package_path=str(tmp_path / "model.pt2"),
                                                       inductor_configs=options)
    run = torch._inductor.aoti_load_package(package)
    for sizes in ((8, 9, 20), (5, 7, 11)):
        with torch.no_grad():
            for a, b in zip(run(*inputs(*sizes)), model(*inputs(*sizes))):
                torch.testing.assert_close(a, b)
