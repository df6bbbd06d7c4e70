"""What holds on CUDA devices: the CPU's bits, no waiting, streams and graphs; and, without one, that nothing would wait.

The other tests run on a GPU too where there is one (`device` in conftest.py). Those here that need one are skipped elsewhere.
"""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import DEVICES
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

import treescan
from treescan import compat, nn

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DIRECTIONS = ("up", "down", "both")
OPS = torch.ops.treescan

HAS_CUDA = "cuda" in treescan.build_info()["backends"]
on_gpu = pytest.mark.skipif("cuda" not in DEVICES, reason="no GPU, or a build without the CUDA backend")


def squared_distance(a, b):
    return (a - b).square().sum(1)


def moved(device, value):
    """A tensor or a module on that device. Whoever watches for transfers and waiting doesn't see it."""
    with _disable_current_modes():
        if "cuda" not in DEVICES:
            return value.to(device)
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            return value.to(device)
        finally:
            torch.cuda.set_sync_debug_mode(before)


def on(device, dtype, *shape, function=torch.clone):
    """A function of random numbers, the same on every device."""
    return moved(device, function(torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype))


# ---- Every call, by name: from a device to results that are on it ----


def scans(device, dtype=torch.float32):
    inputs = [on(device, dtype, 2, 5, 6, 7, function=function).requires_grad_() for function in (torch.clone, torch.sigmoid)]
    for direction in DIRECTIONS:
        y = treescan.tree_scan(*inputs, direction=direction, root=3)
        yield y
        yield from torch.autograd.grad(y, inputs, torch.ones_like(y))


def graphs(device):
    x = on(device, torch.float32, 2, 3, 5, 6)
    sequence = x.flatten(2)
    for metric in ("cosine", "l2", "l1"):
        yield treescan.edge_weights(x, treescan.grid_graph(5, 6, 8), metric)
    yield treescan.build_tree(x, treescan.grid_graph(5, 6, 8), root=7)
    yield treescan.build_tree(x, maximum=True, mask=x[:, 0] > -0.7)
    yield treescan.build_tree(sequence, "tokens", context_length=(3, 20))
    yield treescan.build_tree(sequence, "chain")
    listed = treescan.edge_graph(treescan.grid_graph(5, 6).edge_index_on(device), 30)
    cost = treescan.edge_weights(sequence, listed)
    yield treescan.minimum_spanning_tree(listed, cost, root=moved(device, torch.tensor([4, 29])))
    yield treescan.random_spanning_tree(treescan.grid_graph(5, 6), cost, seed=3)


def trees(device):
    parent = moved(device, ((torch.arange(20) - 1) // 3).clamp(min=0).expand(2, -1))
    tree = treescan.Tree.from_parents(parent)
    yield tree
    yield tree.reroot(moved(device, torch.tensor([3, 19])))
    yield tree.edges
    yield treescan.Tree.from_parents(torch.where(parent == 2, -1, parent).to(torch.int32), forest=True)
    yield treescan.Tree.pack([tree, tree])
    built = treescan.build_tree(on(device, torch.float32, 2, 3, 4, 5))
    yield built.reroot(5)


def sequences(device):
    x = on(device, torch.float32, 2, 3, 9)
    starts = moved(device, torch.tensor([0, 2, 2, 9], dtype=torch.int32))
    mask = moved(device, (torch.arange(9) > 1).expand(2, -1))
    yield treescan.causal_tree(x)
    yield treescan.causal_tree((x, x), 4, context_length=5, mask=mask)
    yield treescan.causal_tree(x, context_length=moved(device, torch.tensor([2, 9])))
    yield treescan.causal_tree(x[:1], cu_seqlens=starts)
    yield treescan.flipped_token_tree(x, 4, mask=mask)
    yield treescan.packed_tree(x[:1], starts, "tokens")
    yield treescan.packed_tree(x[:1], graph="grid", sizes=[(2, 2), (1, 5)])


def selective(device, dtype=torch.float32):
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    u, z = (on(device, dtype, 2, 4, 11, function=function).requires_grad_() for function in (torch.clone, torch.sin))
    A = on(device, computed, 4, 3, function=lambda numbers: -numbers.abs()).requires_grad_()
    B, D = on(device, dtype, 2, 3, 11).requires_grad_(), on(device, computed, 4).requires_grad_()
    tree = treescan.causal_tree(u)
    for direction in DIRECTIONS:
        outputs = treescan.selective_tree_scan(u, z, A, B, B, tree, D, z, D, True, direction, return_last_state=True)
        yield outputs
        yield torch.autograd.grad(outputs, (u, z, A, B, D), [torch.ones_like(output) for output in outputs])


def steps(device):
    state = treescan.init_state(2, 4, 3, window=3, num_features=5, device=device)
    A = -on(device, torch.float32, 4, 3).abs()
    token, B = on(device, torch.float32, 2, 4), on(device, torch.float32, 2, 3)
    for _ in range(5):
        y, state = treescan.step(state, token, token.abs(), A, B, B, features=on(device, torch.float32, 2, 5))
        yield y, state
        token = token.roll(1, 0) + 1


def modules(device):
    x = on(device, torch.float32, 2, 8, 5, 6)
    yield nn.TreeFilter2d(groups=2)(x)
    yield nn.TreeScan2d()(x, x.sigmoid())
    yield nn.TreeEnergyLoss()(x, x, x, x[:, 0] > 0)
    torch.manual_seed(0)
    yield moved(device, nn.TreeSSM(8, d_state=2))(x.permute(0, 2, 3, 1))


def originals(device):
    x = on(device, torch.float32, 2, 4, 5, 6)
    edges = compat.MinimumSpanningTree(squared_distance)(x)
    yield edges
    yield compat.TreeFilter2D(groups=2)(x, x, edges)
    index, parent, child = compat.tree_scan.bfs_forward(edges, 4)
    yield index, parent, child
    feature, weight = x.flatten(2), x.flatten(2).sigmoid()
    rest = index, parent, child
    ones = torch.ones_like(weight[:, 0])
    yield compat.tree_scan.tree_scan_refine_forward(feature, weight, *rest, ones)
    yield compat.tree_scan.tree_scan_refine_backward_edge_weight(feature, weight, *rest, feature, feature, feature, ones)
    yield compat.tree_scan_lan.tree_scan_refine_backward_feature(feature, weight, *rest, feature)


CALLS = (scans, graphs, trees, sequences, selective, steps, modules, originals)


class NoTransfers(TorchDispatchMode):
    """Fails where an operation reads on one device and writes on another: with a GPU somebody would wait."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        devices = {tensor.device.type for tensor in tree_leaves((arguments, keywords, result))
                   if isinstance(tensor, torch.Tensor) and tensor.ndim}
        assert len(devices) < 2, f"{function} works on {devices}"
        return result


@pytest.mark.parametrize("calls", CALLS, ids=lambda calls: calls.__name__)
def test_results_stay_on_the_device_and_nobody_looks_at_values(calls):
    """On the meta device, which has no values that could be looked at, and is as little the CPU as a GPU is."""
    with NoTransfers():
        for results in calls("meta"):
            for tensor in tree_leaves(results):
                assert tensor is None or tensor.device.type == "meta"


def test_the_watch_finds_transfers_and_looks():
    with NoTransfers():
        with pytest.raises(AssertionError, match="works on"):
            torch.ones(3).to("meta")
    with pytest.raises(RuntimeError):
        torch.ones(3, device="meta").sum().item()


def test_fake_kernels_know_devices():
    graph = treescan.chain_graph(4).arguments
    with FakeTensorMode():
        x, cost, A = (torch.empty(*shape, device="cuda:1") for shape in ((2, 3, 4), (2, 3), (3, 2)))
        parent, order = (torch.empty(2, 4, dtype=torch.int32, device="cuda:1") for _ in range(2))
        root = torch.empty(1, dtype=torch.int32, device="cuda:1")
        edges = torch.empty(2, 3, 2, dtype=torch.int32, device="cuda:1")
        results = (
            OPS.scan(x, x, parent, order, "up"), OPS.scan_backward(x, x, x, parent, order, "up"),
            OPS.edge_weights(x, *graph, "l2", False), OPS.minimum_spanning_tree(cost, *graph, False, root),
            OPS.random_spanning_tree(cost, *graph, 0, root), OPS.tree_from_edges(edges, root, False),
            OPS.tree_from_parents(parent, None), OPS.forest_from_parents(parent),
            OPS.selective_scan(x, x, A, A, A, None, None, None, parent, order, True, "down"),
            OPS.selective_scan_backward(x, None, x, x, A, A, A, None, None, None, parent, order, True, "down"))
    for tensor in tree_leaves(results):
        assert str(tensor.device) == "cuda:1"


# ---- Without a device, or without the backend ----


@pytest.mark.skipif("cuda" in DEVICES, reason="there is a GPU")
def test_a_gpu_is_refused_where_there_is_no_backend_or_no_gpu():
    message = "CUDA finds none" if HAS_CUDA else "this build has no CUDA backend"
    for device in (None, 0, "cuda", "cuda:1", torch.device("cuda", 0)):
        with pytest.raises(ValueError, match=message):
            treescan.synchronize(device)


TORCH_WITH_GPU = r"""
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

/* Stand before torch's: every tensor is on the first GPU, whose stream is made up. */
int32_t aoti_torch_device_type_cuda(void) { return 1; }
int32_t aoti_torch_get_device_type(void *tensor, int32_t *type) {
  (void)tensor;
  *type = aoti_torch_device_type_cuda();
  return 0;
}
int32_t aoti_torch_get_device_index(void *tensor, int32_t *index) {
  (void)tensor;
  *index = 0;
  return 0;
}
int32_t aoti_torch_get_current_cuda_stream(int32_t index, void **stream) {
  *stream = (char *)0 + (1LL << 46) + 5 + index;
  return 0;
}
static char memory[4096];
int32_t aoti_torch_get_data_ptr(void *tensor, void **data) {
  (void)tensor;
  *data = memory;
  return 0;
}
static void *some_tensor;
int32_t aoti_torch_get_dim(void *tensor, int64_t *dim) {
  some_tensor = tensor;
  *dim = 3;
  return 0;
}
int32_t aoti_torch_empty_strided(int64_t ndim, const int64_t *sizes, const int64_t *strides, int32_t dtype, int32_t device,
                                 int32_t index, void **tensor) {
  (void)strides;
  printf("empty %d:%d %lld %lld %d\n", device == aoti_torch_device_type_cuda(), index, (long long)ndim, (long long)sizes[0], dtype);
  fflush(stdout);
  void *torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  int32_t (*copy)(void *, void **) = (int32_t(*)(void *, void **))dlsym(torch, "aoti_torch_new_tensor_handle");
  return copy(some_tensor, tensor);
}
"""

LIBRARY = r"""
#include "treescan/treescan.h"

/* Stands before the library's: asks for 1,000 bytes, then says what it got. */
treescan_status treescan_scan(int32_t direction, const treescan_tensor *parent, const treescan_tensor *order,
                              const treescan_tensor *x, const treescan_tensor *weights, const treescan_tensor *y,
                              treescan_workspace *workspace, void *stream) {
  (void)direction, (void)parent, (void)order, (void)weights, (void)y;
  if (!workspace->data) {
    workspace->size = 1000;
  } else {
    printf("scan %d:%d %d %lld %lld\n", x->device, x->device_index, workspace->data == memory,
           (long long)workspace->size, (long long)stream);
    fflush(stdout);
  }
  return TREESCAN_OK;
}

treescan_status treescan_synchronize(int32_t device, int32_t device_index, void *stream) {
  printf("synchronize %d:%d %lld\n", device, device_index, (long long)stream);
  fflush(stdout);
  return TREESCAN_OK;
}
"""

PROGRAM = """
import types
import torch
import treescan

x, tree = torch.rand(1, 2, 4), torch.tensor([[0, 0, 1, 1]], dtype=torch.int32)
torch.cuda.is_available = lambda: True
torch.cuda.current_stream = lambda device: types.SimpleNamespace(
    cuda_stream=2**46 + 5, device_index=getattr(device, "index", device))
try:
    torch.ops.treescan.scan(x, x, tree, tree, "up")
except ValueError as error:
    print(error)
treescan.synchronize("cuda:3")
"""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="takes LD_PRELOAD and a C compiler")
@pytest.mark.parametrize("backend", [True, False])
def test_calls_get_torchs_stream_and_memory(backend, tmp_path):
    """What the library is called with, seen by one that stands before it; the GPU and its stream are made up. Without a
    backend, the call is refused."""
    (tmp_path / "library.c").write_text(TORCH_WITH_GPU + (LIBRARY if backend else ""))
    (tmp_path / "program.py").write_text(PROGRAM if backend else PROGRAM.partition("treescan.synchronize")[0])
    subprocess.run(["cc", "-shared", "-fPIC", f"-I{treescan.get_include_dir()}", "library.c", "-o", "library.so"],
                   cwd=tmp_path, check=True)
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True,
                          env={**os.environ, "LD_PRELOAD": str(tmp_path / "library.so")})
    *allocated, said = done.stdout.splitlines()
    if not backend:
        assert ("CUDA finds none" if HAS_CUDA else "this build has no CUDA backend") in said
        return
    result, scratch, scanned = allocated
    assert result.startswith("empty 1:0 3 ") and scratch.startswith("empty 1:0 1 1000 0")  # torch's number of uint8 is 0
    assert scanned == f"scan 2:0 1 1000 {2**46 + 5}"
    assert said == f"synchronize 2:3 {2**46 + 5}"


def test_synchronize_on_the_cpu_and_elsewhere():
    treescan.synchronize("cpu")
    treescan.synchronize(torch.device("cpu"))
    with pytest.raises(ValueError, match="device must be the CPU or a CUDA device, got meta"):
        treescan.synchronize("meta")


def test_strategies_have_names():
    treescan.set_cuda_strategy()
    if not HAS_CUDA:
        for chosen in ({"trees": "auto"}, {"scans": "paths"}):
            with pytest.raises(ValueError, match="this build has no CUDA backend"):
                treescan.set_cuda_strategy(**chosen)
        return
    for chosen, listed in (({"trees": "levels"}, '"auto", "block" or "grid"'),
                           ({"scans": "grid"}, '"auto", "levels" or "paths"')):
        with pytest.raises(ValueError, match=listed):
            treescan.set_cuda_strategy(**chosen)
    treescan.set_cuda_strategy(trees="auto", scans="auto")


def test_build_info_lists_backends():
    backends = treescan.build_info()["backends"]
    assert backends.startswith("cpu") and backends in treescan.build_info()["library"] and ";" not in backends


# ---- On a device ----


def bits(tensor):
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)


def assert_same_bits(calls, *options):
    for there, here in zip(calls("cuda", *options), calls("cpu", *options), strict=True):
        for one, other in zip(tree_leaves(there), tree_leaves(here), strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert one.shape == other.shape and one.dtype == other.dtype and one.is_cuda
                assert torch.equal(bits(one), bits(other))


@pytest.fixture
def strategy(request):
    treescan.set_cuda_strategy(**request.param)
    yield
    treescan.set_cuda_strategy(trees="auto", scans="auto")


STRATEGIES = pytest.mark.parametrize(
    "strategy", [{"trees": "block", "scans": "levels"}, {"trees": "grid", "scans": "paths"}], indirect=True,
    ids=lambda chosen: "-".join(chosen.values()))


@on_gpu
@STRATEGIES
@pytest.mark.parametrize("calls", (graphs, trees, sequences), ids=lambda calls: calls.__name__)
def test_trees_have_the_cpus_bits(calls, strategy):
    assert_same_bits(calls)


@on_gpu
@STRATEGIES
@pytest.mark.parametrize("dtype", DTYPES)
def test_scans_have_the_cpus_bits(dtype, strategy):
    assert_same_bits(scans, dtype)
    assert_same_bits(selective, dtype)


@on_gpu
@pytest.mark.parametrize("shape", [(3, 16, 56, 56), (2, 8, 224, 224), (1, 3, 1, 65536)])
def test_large_images_have_the_cpus_bits(shape):
    def calls(device):
        x = on(device, torch.float32, *shape)
        weights = on(device, torch.float32, *shape, function=torch.sigmoid).to(memory_format=torch.channels_last)
        tree = treescan.build_tree(x)
        yield tree
        yield treescan.tree_scan(x, weights, tree)

    assert_same_bits(calls)


@on_gpu
@pytest.mark.parametrize("calls", CALLS, ids=lambda calls: calls.__name__)
def test_no_call_waits(calls):
    list(calls("cuda"))  # what is set up once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(calls("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def features_to_output(x, weights):
    grads = torch.autograd.grad(treescan.tree_scan(x, weights), (x, weights), torch.ones_like(x))
    return treescan.tree_scan(x.detach(), weights.detach()), *grads


@on_gpu
def test_graphs_capture_the_whole_path():
    x = on("cuda", torch.float32, 2, 5, 9, 8).requires_grad_()
    weights = x.detach().sigmoid().requires_grad_()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            features_to_output(x, weights)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = features_to_output(x, weights)
    for seed in range(3):
        with torch.no_grad():
            x.copy_(torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)))
        graph.replay()
        for got, wanted in zip(results, features_to_output(x, weights)):
            assert torch.equal(got, wanted)


@on_gpu
def test_calls_run_on_the_current_stream():
    x, stream = on("cuda", torch.float32, 1, 4, 64, 64), torch.cuda.Stream()
    tree = treescan.build_tree(x)
    expected = treescan.tree_scan(x + 1, x, tree, direction="up")
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = x.clone()
        torch.cuda._sleep(50_000_000)
        late += 1  # a scan on another stream would read what was there before
        y = treescan.tree_scan(late, x, tree, direction="up")
        treescan.synchronize("cuda")
        assert stream.query()
    assert torch.equal(y, expected)


@on_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="takes two GPUs")
def test_a_device_that_is_not_the_current_one():
    x = on("cuda:1", torch.float32, 1, 4, 9, 9)
    y = treescan.tree_scan(x, x.sigmoid())
    assert y.device == x.device and torch.cuda.current_device() == 0
    assert torch.equal(y.cpu(), treescan.tree_scan(x.cpu(), x.sigmoid().cpu()))
    with pytest.raises(ValueError, match="expected device 1 as x has, got device 0"):
        treescan.tree_scan(x, x.sigmoid(), treescan.build_tree(x.to("cuda:0")))


@on_gpu
def test_what_is_wrong_with_values_is_said_when_somebody_waits():
    cost = torch.zeros(1, 3, device="cuda")
    tree = treescan.minimum_spanning_tree(treescan.chain_graph(4), cost, root=9)
    with pytest.raises(ValueError, match="root.*got 9"):
        treescan.synchronize()
    treescan.synchronize()  # it is said once
    assert (tree.parent == -1).all()
    parent = torch.tensor([[1, 2, 0, 3]], device="cuda", dtype=torch.int32)
    assert (treescan.Tree.from_parents(parent).parent == -1).all()
    with pytest.raises(ValueError, match="parent"):
        treescan.synchronize()
    x = torch.ones(1, 1, 4, device="cuda")
    order = torch.arange(4, device="cuda", dtype=torch.int32)[None]
    y = treescan.tree_scan(x, x, treescan.Tree(parent, order, order, order[:, 0]))
    assert y.isnan().all()
    with pytest.raises(ValueError, match="parent|order"):
        treescan.tree_scan(x, x, "chain")  # whatever comes next
