"""Arguments of neighbouring types, by one table of all public functions: taken with the same result, or refused by name."""

import inspect
from functools import partial

import numpy as np
import pytest
import torch
import treescan
import treescan.numpy as arrays
from torch.utils import _pytree as pytree
from treescan import Tree, compat, nn

LENGTH, BATCH = 20, 2


def numpy_of(value, *changes):
    array = np.asarray(value.numpy() if isinstance(value, torch.Tensor) else value)
    for change in changes:
        array = change(array)
    return array


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


INTEGER_TYPES = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
TENSOR_TYPES = (torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64)
INTEGERS = {
    **{f"np.{kind.__name__}": kind for kind in INTEGER_TYPES},
    **{str(kind): partial(torch.tensor, dtype=kind) for kind in TENSOR_TYPES},
    "a 0-d array": np.array,
}
INDICES = {
    **{f"np.{kind.__name__}": lambda value, kind=kind: numpy_of(value).astype(kind) for kind in INTEGER_TYPES},
    **{str(kind): lambda value, kind=kind: value.to(kind) for kind in TENSOR_TYPES},
    "big-endian": lambda value: numpy_of(value, lambda array: array.astype(">i8")),
    "Fortran order": lambda value: numpy_of(value, np.asfortranarray),
    "read-only": lambda value: numpy_of(value, read_only),
    "negative strides": lambda value: numpy_of(value, np.flip, np.copy, np.flip),
    "a strided tensor": lambda value: torch.stack((value, value), -1)[..., 0],
}
VALUES = (None, "3", [3], object(), {})

# For every kind of argument: what is taken with the same result, and what is refused.
KINDS = {
    "integer": (
        INTEGERS,
        {
            "True": lambda value: True,
            "np.True_": lambda value: np.True_,
            "a bool tensor": lambda value: torch.tensor(True),
            "float": float,
            "np.float64": np.float64,
            "a float tensor": lambda value: torch.tensor(float(value)),
            "a complex": complex,
            "an array": lambda value: np.array([value, value, value]),
            "a tensor": lambda value: torch.tensor([value]),
            "str": str,
            "a list": lambda value: [value],
        },
    ),
    "number": (
        {
            "np.float32": np.float32,
            "np.float64": np.float64,
            "np.float16": np.float16,
            "int": int,
            "np.int64": np.int64,
        },
        {
            "True": lambda value: True,
            "np.True_": lambda value: np.True_,
            "NaN": lambda value: float("nan"),
            "a tensor": torch.tensor,
            "an array": np.array,
            "str": str,
            "None": lambda value: None,
            "complex": complex,
        },
    ),
    "flag": (
        {"np.bool": np.bool_},
        {
            "int": int,
            "a tensor": torch.tensor,
            "an array": lambda value: np.array([value]),
            "str": str,
            "None": lambda value: None,
        },
    ),
    "indices": (
        INDICES,
        {
            "a list": lambda value: value.tolist(),
            "floats": torch.Tensor.float,
            "bools": torch.Tensor.bool,
            "NumPy floats": lambda value: numpy_of(value).astype(float),
            "NumPy bools": lambda value: numpy_of(value).astype(bool),
            "NumPy objects": lambda value: numpy_of(value).astype(object),
            "2^32 more": lambda value: value.long() + 2**32,
            "2^32 more in NumPy": lambda value: numpy_of(value).astype(np.uint64) + 2**32,
            "2^64 - 1": lambda value: torch.full_like(value, -1, dtype=torch.int64).view(torch.uint64),
            "2^64 - 1 in NumPy": lambda value: np.full_like(numpy_of(value), 2**64 - 1, dtype=np.uint64),
            "str": str,
            "None": lambda value: None,
        },
    ),
    "tensor": (
        {"a strided tensor": lambda value: torch.stack((value, value), -1)[..., 0]},
        {
            "an array": torch.Tensor.numpy,
            "a list": torch.Tensor.tolist,
            "integers": torch.Tensor.int,
            "bools": torch.Tensor.bool,
            "complex numbers": lambda value: value.to(torch.complex64),
            "a number": lambda value: 1.0,
            "str": str,
            "None": lambda value: None,
        },
    ),
    "mask": (
        {},
        {
            "an array": torch.Tensor.numpy,
            "a list": torch.Tensor.tolist,
            "bytes": torch.Tensor.byte,
            "floats": torch.Tensor.float,
            "True": lambda value: True,
        },
    ),
    "choice": (
        {"np.str_": np.str_},
        {
            "another": lambda value: "another",
            "a list": lambda value: [value],
            "an array": lambda value: np.array([value, value]),
            "bytes": str.encode,
            "int": lambda value: 0,
        },
    ),
    "graph": (
        {},
        {
            "str": lambda value: "net",
            "an array": lambda value: np.zeros((3, 2), dtype=int),
            "a tensor": lambda value: torch.zeros(3, 2, dtype=torch.int32),
            "None": lambda value: None,
        },
    ),
    "tree": (
        {},
        {
            "a tuple": lambda value: tuple(value),
            "a tensor": lambda value: value.parent,
            "a list of trees": lambda value: [value],
            "fields in a stack": lambda value: Tree(*(torch.stack((field, field)) for field in value[:4])),
            "int64 fields": lambda value: Tree(*(field.long() for field in value[:4])),
        },
    ),
    "trees": (
        {"a tuple": tuple},
        {
            "nothing": lambda value: [],
            "tuples": lambda value: [tuple(tree) for tree in value],
            "a Tree": lambda value: value[0],
            "fields in a stack": lambda value: [Tree(*(torch.stack((field, field)) for field in tree[:4])) for tree in value],
        },
    ),
    "other": ({}, {}),
}
KINDS["root"] = ({**KINDS["integer"][0]}, {key: make for key, make in KINDS["integer"][1].items() if key != "a tensor"})
KINDS["optional tensor"] = (KINDS["tensor"][0], {key: make for key, make in KINDS["tensor"][1].items() if key != "None"})
KINDS["optional indices"] = (INDICES, {key: make for key, make in KINDS["indices"][1].items() if key != "None"})
KINDS["optional integer"] = KINDS["integer"]
KINDS["one context"] = (
    INTEGERS,
    {key: make for key, make in KINDS["integer"][1].items() if key not in ("a tensor", "an array", "a list")},
)
KINDS["features"] = (KINDS["tensor"][0], {key: make for key, make in KINDS["tensor"][1].items() if key != "integers"})
KINDS["optional features"] = (KINDS["tensor"][0], {key: make for key, make in KINDS["features"][1].items() if key != "None"})
KINDS["contexts"] = (
    {**INDICES, "a list": lambda value: value.tolist(), "a list of np.int64": lambda value: list(value.numpy())},
    {
        **{key: make for key, make in KINDS["indices"][1].items() if key not in ("a list", "None")},
        "a list of bools": lambda value: [True] * len(value),
        "a list of floats": lambda value: value.float().tolist(),
        "float": lambda value: 2.0,
        "True": lambda value: True,
    },
)
KINDS["sizes"] = (
    {
        **{key: lambda value, make=make: make(torch.tensor(value)) for key, make in INDICES.items()},
        "tuples": lambda value: tuple(map(tuple, value)),
    },
    {
        "one pair": lambda value: value[0],
        "triples": lambda value: [(*pair, 1) for pair in value],
        "floats": lambda value: [[float(size) for size in pair] for pair in value],
        "a float tensor": lambda value: torch.tensor(value).float(),
        "bools": lambda value: [[True, 20]],
        "nothing": lambda value: [],
        "str": str,
    },
)

torch.manual_seed(0)
X = torch.rand(BATCH, 3, LENGTH)
IMAGE = torch.rand(BATCH, 4, 4, 5)
GRID = treescan.grid_graph(4, 5)
CHAIN = treescan.chain_graph(LENGTH)
COST = torch.rand(BATCH, GRID.num_edges)
TREE = treescan.build_tree(IMAGE)
MASK = torch.rand(BATCH, LENGTH) < 0.8
U, A, TOKEN = torch.rand(BATCH, 3, LENGTH), -torch.rand(3, 2), torch.rand(BATCH, 3)
B, D = torch.rand(BATCH, 2, LENGTH), torch.rand(3)
BATCH_OF_TREES = [treescan.build_tree(IMAGE), treescan.build_tree(-IMAGE)]
EDGES = TREE.edges
SORTED = compat.tree_scan.bfs_forward(EDGES, 8)
SCANNED = (torch.rand(BATCH, 3, LENGTH), torch.rand(BATCH, 3, LENGTH), *SORTED)


def threads(num_threads):
    """The number that set_num_threads sets, which is put back at once."""
    try:
        treescan.set_num_threads(num_threads)
        return treescan.get_num_threads()
    finally:
        treescan.set_num_threads(None)


def tree_of(edge_index, num_vertices):
    """Of a graph of edges, whose indices are looked at where a tree is built."""
    return treescan.minimum_spanning_tree(treescan.edge_graph(edge_index, num_vertices), COST)


def seeded(function):
    def call(**arguments):
        torch.manual_seed(0)
        return function(**arguments)

    return call


def module(kind, *given):
    """What a module made with these arguments computes; its printed form and its parameters."""

    def call(**arguments):
        torch.manual_seed(0)
        made = kind(**arguments)
        return made(*given), repr(made), made.state_dict()

    return call


# name: (what is called, the function whose parameters these are, {parameter: (its kind, a value)})
SCAN = {
    "direction": ("choice", "up"), "metric": ("choice", "l2"), "maximum": ("flag", True), "root": ("root", 3),
    "window": ("integer", 3), "context_length": ("contexts", torch.tensor([5, 7])), "mask": ("mask", MASK),
}  # fmt: skip
SELECTIVE = {
    "u": ("tensor", U), "delta": ("tensor", U), "A": ("tensor", A), "B": ("tensor", B), "C": ("tensor", B),
    "D": ("optional tensor", D), "z": ("optional tensor", U), "delta_bias": ("optional tensor", D),
    "delta_softplus": ("flag", True),
}  # fmt: skip
REFINE = {
    "feature": ("tensor", SCANNED[0]), "edge_weight": ("tensor", SCANNED[1]), "sorted_index": ("indices", SORTED[0]),
    "sorted_parent": ("indices", SORTED[1]), "sorted_child": ("other", SORTED[2]), "out": ("other", None),
    "aggr_up": ("other", None), "grad_out": ("tensor", SCANNED[1]), "edge_coef": ("tensor", torch.rand(BATCH, LENGTH)),
}  # fmt: skip
RST = {"edge_index": ("indices", GRID.edge_index), "edge_weight": ("tensor", COST), "vertex_count": ("integer", LENGTH)}
SSM = {
    "d_model": ("integer", 5), "d_state": ("integer", 2), "ssm_ratio": ("number", 2.0), "dt_rank": ("integer", 2),
    "d_conv": ("integer", 3), "conv_bias": ("flag", True), "bias": ("flag", True), "dropout": ("number", 0.0),
    "metric": ("choice", "l2"), "dt_min": ("number", 2.0), "dt_max": ("number", 4.0), "dt_scale": ("number", 1.0),
    "dt_init_floor": ("number", 1.0),
}  # fmt: skip
PICTURE = {
    "metric": ("choice", "l2"), "connectivity": ("integer", 8), "maximum": ("flag", True), "root": ("integer", 3),
    "direction": ("choice", "up"), "sigma_color": ("number", 2.0),
}  # fmt: skip
SCANNING = nn.TreeSSM(6).requires_grad_(False)


def parameters_of(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


def chosen(table, function, **changed):
    """The parameters that a function has, with the table's values."""
    table = {**table, **changed}
    return {name: table[name] for name in parameters_of(function)}


TABLE = {
    "grid_graph": (
        treescan.grid_graph, {"height": ("integer", 4), "width": ("integer", 5), "connectivity": ("integer", 8)}
    ),
    "token_graph": (
        treescan.token_graph,
        {"length": ("integer", 9), "window": ("integer", 3), "context_length": ("contexts", torch.tensor([5, 7]))},
    ),
    "token_graph, one context": (
        treescan.token_graph, {"length": ("integer", 9), "window": ("integer", 3), "context_length": ("one context", 4)}
    ),
    "chain_graph": (treescan.chain_graph, {"length": ("integer", 9)}),
    "edge_graph": (tree_of, {"edge_index": ("indices", GRID.edge_index), "num_vertices": ("integer", LENGTH)}),
    "edge_weights": (
        treescan.edge_weights,
        {"features": ("features", IMAGE), "graph": ("graph", GRID), "metric": ("choice", "l1"), "exp": ("flag", True),
         "dtype": ("other", torch.float64)},
    ),
    "minimum_spanning_tree": (
        treescan.minimum_spanning_tree,
        chosen(SCAN, treescan.minimum_spanning_tree, graph=("graph", GRID), cost=("features", COST), mask=("other", None)),
    ),
    "minimum_spanning_tree, masked": (
        treescan.minimum_spanning_tree,
        chosen(SCAN, treescan.minimum_spanning_tree, graph=("graph", GRID), cost=("features", COST)),
    ),
    "minimum_spanning_tree, several roots": (
        treescan.minimum_spanning_tree,
        chosen(SCAN, treescan.minimum_spanning_tree, graph=("graph", GRID), cost=("features", COST), mask=("other", None),
               root=("indices", torch.tensor([3, 4]))),
    ),
    "random_spanning_tree": (
        treescan.random_spanning_tree,
        {"graph": ("graph", GRID), "cost": ("features", COST), "seed": ("integer", 7), "root": ("root", 3)},
    ),
    "build_tree": (
        treescan.build_tree, chosen(SCAN, treescan.build_tree, features=("features", X), graph=("choice", "tokens"))
    ),
    "tree_scan": (
        treescan.tree_scan,
        chosen(SCAN, treescan.tree_scan, x=("tensor", X), weights=("tensor", X), graph=("choice", "tokens"),
               guide=("optional features", X), out=("other", None)),
    ),
    "tree_scan, of a tree": (
        treescan.tree_scan,
        {**{name: ("other", inspect.signature(treescan.tree_scan).parameters[name].default)
            for name in parameters_of(treescan.tree_scan)},
         "x": ("tensor", X), "weights": ("tensor", X), "graph": ("tree", TREE)},
    ),
    "packed_tree": (
        treescan.packed_tree,
        {"features": ("features", X[:1]), "cu_seqlens": ("optional indices", torch.tensor([0, 4, 20])), "graph": ("choice", "tokens"),
         "sizes": ("other", None), "metric": ("choice", "l2"), "maximum": ("flag", True), "window": ("integer", 3)},
    ),
    "packed_tree, of images": (
        treescan.packed_tree,
        {"features": ("features", X[:1]), "cu_seqlens": ("other", None), "graph": ("choice", "grid"),
         "sizes": ("sizes", [[2, 4], [3, 4]]), "metric": ("choice", "l2"), "maximum": ("flag", True),
         "window": ("other", 3)},
    ),
    "causal_tree": (
        treescan.causal_tree,
        chosen(SCAN, treescan.causal_tree, features=("features", X), cu_seqlens=("other", None)),
    ),
    "causal_tree, one context": (
        treescan.causal_tree,
        chosen(SCAN, treescan.causal_tree, features=("features", X), cu_seqlens=("other", None),
               context_length=("one context", 4)),
    ),
    "causal_tree, packed": (
        treescan.causal_tree,
        chosen(SCAN, treescan.causal_tree, features=("features", X[:1]), mask=("other", None), context_length=("other", None),
               cu_seqlens=("optional indices", torch.tensor([0, 4, 20]))),
    ),
    "flipped_token_tree": (
        treescan.flipped_token_tree, chosen(SCAN, treescan.flipped_token_tree, features=("features", X))
    ),
    "selective_tree_scan": (
        treescan.selective_tree_scan,
        chosen(SELECTIVE, treescan.selective_tree_scan, tree=("tree", TREE), direction=("choice", "up"),
               return_last_state=("flag", True)),
    ),
    "init_state": (
        treescan.init_state,
        {"batch_size": ("integer", 2), "channels": ("integer", 3), "states": ("integer", 4), "window": ("integer", 5),
         "num_features": ("integer", 6), "dtype": ("other", torch.float32), "device": ("other", "cpu")},
    ),
    "step": (
        treescan.step,
        chosen(SELECTIVE, treescan.step, u=("tensor", TOKEN), delta=("tensor", TOKEN), B=("tensor", B[..., 0]),
               C=("tensor", B[..., 0]), z=("optional tensor", TOKEN), features=("tensor", TOKEN),
               state=("other", treescan.init_state(BATCH, 3, 2, window=4, num_features=3)),
               active=("mask", torch.tensor([True, False]))),
    ),
    "Tree.from_parents": (
        Tree.from_parents,
        {"parent": ("indices", TREE.parent), "root_parent": ("choice", "self"), "forest": ("flag", False)},
    ),
    "Tree.from_parents, -1 at the root": (
        Tree.from_parents,
        {"parent": ("other", TREE.parent.where(TREE.depth > 0, -1)), "root_parent": ("-1", -1), "forest": ("flag", True)},
    ),
    "Tree.from_edges": (Tree.from_edges, {"edges": ("indices", EDGES), "root": ("root", 3)}),
    "Tree.from_edges, several roots": (
        Tree.from_edges, {"edges": ("indices", EDGES), "root": ("indices", torch.tensor([3, 4]))}
    ),
    "Tree.pack": (Tree.pack, {"trees": ("trees", BATCH_OF_TREES)}),
    "Tree.collate": (Tree.collate, {"trees": ("trees", BATCH_OF_TREES)}),
    "Tree.reroot": (TREE.reroot, {"root": ("root", 3)}),
    "Tree.reroot, several": (TREE.reroot, {"root": ("indices", torch.tensor([3, 4]))}),
    "set_num_threads": (threads, {"num_threads": ("optional integer", 3)}),
    "nn.TreeFilter2d": (
        module(nn.TreeFilter2d, IMAGE),
        {"groups": ("integer", 2), "sigma": ("number", 2.0), "distance": ("choice", "l1"), "metric": ("choice", "l1")},
    ),
    "nn.TreeFilter2d.forward": (
        nn.TreeFilter2d().forward,
        {"x": ("tensor", IMAGE), "embedding": ("optional tensor", IMAGE), "guide": ("other", None), "tree": ("tree", TREE)},
    ),
    "nn.TreeFilter2d.forward, a guide": (
        nn.TreeFilter2d().forward,
        {"x": ("tensor", IMAGE), "embedding": ("other", None), "guide": ("optional features", IMAGE), "tree": ("other", None)},
    ),
    "nn.TreeScan2d": (
        module(nn.TreeScan2d, IMAGE, IMAGE),
        {"direction": ("choice", "up"), "metric": ("choice", "l2"), "maximum": ("flag", True), "root": ("integer", 3)},
    ),
    "nn.TreeScan2d.forward": (
        nn.TreeScan2d().forward,
        {"x": ("tensor", IMAGE), "weights": ("tensor", IMAGE), "guide": ("other", None), "tree": ("tree", TREE)},
    ),
    "nn.TreeScan2d.forward, a guide": (
        nn.TreeScan2d().forward,
        {"x": ("tensor", IMAGE), "weights": ("tensor", IMAGE), "guide": ("optional features", IMAGE), "tree": ("other", None)},
    ),
    "nn.tree_scanning": (
        nn.tree_scanning,
        {"x": ("tensor", torch.rand(BATCH, 12, 4, 5)),
         **{name: ("tensor", getattr(SCANNING, name).data)
            for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")},
         "out_norm": ("other", SCANNING.out_norm), "h_norm": ("other", SCANNING.h_norm), "tree": ("tree", TREE),
         "metric": ("other", "cosine")},
    ),
    "nn.tree_scanning, its own tree": (
        partial(nn.tree_scanning, **{name: getattr(SCANNING, name).data for name in
                                     ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")},
                out_norm=SCANNING.out_norm, h_norm=SCANNING.h_norm),
        {"x": ("tensor", torch.rand(BATCH, 12, 4, 5)), "tree": ("other", None), "metric": ("choice", "l2")},
    ),
    "nn.TreeSSM": (module(nn.TreeSSM, torch.rand(1, 4, 4, 5)), SSM),
    "nn.TreeSSM.forward": (
        SCANNING.forward,
        {"x": ("tensor", torch.rand(BATCH, 4, 5, 6)), "tree": ("tree", TREE), "return_tree": ("flag", True)},
    ),
    "nn.TreeEnergyLoss": (
        module(nn.TreeEnergyLoss, IMAGE, IMAGE, IMAGE, torch.ones(BATCH, 4, 5)), {"sigma": ("number", 2.0)}
    ),
    "nn.TreeEnergyLoss.forward": (
        nn.TreeEnergyLoss().forward,
        {"preds": ("tensor", IMAGE), "low_feats": ("tensor", IMAGE), "high_feats": ("optional tensor", IMAGE),
         "unlabeled_rois": ("other", torch.ones(BATCH, 4, 5)), "weight": ("number", 2.0), "mask": ("mask", MASK.view(-1, 4, 5))},
    ),
    **{
        f"compat.{extension.__name__.rpartition('.')[2]}.{name}": (
            seeded(getattr(extension, name)), chosen(table, getattr(extension, name))
        )
        for extension in (compat.tree_scan, compat.tree_scan_lan)
        for name in extension.__all__
        for table in [{**REFINE, **RST, "edges": ("indices", EDGES), "max_adj": ("integer", 8)}
                      if name in ("mst_forward", "rst_forward", "bfs_forward") else
                      {**REFINE, "out": ("tensor", SCANNED[0])} if extension is compat.tree_scan_lan else REFINE]
    },
    **{
        f"numpy.{name}": (
            getattr(arrays, name),
            {parameter: PICTURE.get(parameter, ("other", value)) for parameter, value in known.items()},
        )
        for name, known in {
            "edge_weights": {"image": IMAGE[0, 0].numpy(), "metric": None, "connectivity": None},
            "minimum_spanning_tree": {"image": IMAGE[0, 0].numpy(), "metric": None, "connectivity": None, "maximum": None,
                                      "root": None, "mask": None},
            "tree_scan": {"x": IMAGE[0, 0].numpy(), "weights": IMAGE[0, 0].numpy(), "tree": TREE.parent[0].numpy(),
                          "direction": None},
            "tree_filter": {"image": IMAGE[0, 0].numpy(), "sigma_color": None, "guide": None, "connectivity": None,
                            "mask": None},
        }.items()
    },
    "compat.TreeFilter2D": (
        module(compat.TreeFilter2D, IMAGE, IMAGE, EDGES),
        {"groups": ("integer", 2), "sigma": ("number", 2.0), "distance_func": ("other", None), "enable_log": ("other", False),
         "normalize": ("flag", False)},
    ),
    "compat.TreeFilter2D.forward": (
        compat.TreeFilter2D().forward,
        {"feature_in": ("tensor", IMAGE), "embed_in": ("tensor", IMAGE), "tree": ("indices", EDGES),
         "low_tree": ("flag", True)},
    ),
}  # fmt: skip
KINDS["-1"] = (
    {key: make for key, make in INTEGERS.items() if "uint" not in key},
    {"-2": lambda value: -2, "True": lambda value: True, "float": float, "None": lambda value: None, "0": lambda value: 0},
)

CELLS = [
    pytest.param(name, argument, form, taken, id=f"{name}({argument}: {form})")
    for name, (_, arguments) in TABLE.items()
    for argument, (kind, _) in arguments.items()
    for taken, forms in zip((True, False), KINDS[kind])
    for form in forms
]


@pytest.mark.parametrize(("name", "argument", "form", "taken"), CELLS)
def test_neighbouring_types(name, argument, form, taken):
    call, arguments = TABLE[name]
    kind, value = arguments[argument]
    given = {key: value for key, (_, value) in arguments.items()}
    neighbour = {**given, argument: KINDS[kind][not taken][form](value)}
    if taken:
        expected, spec = pytree.tree_flatten(call(**given))
        found, found_spec = pytree.tree_flatten(call(**neighbour))
        assert found_spec == spec
        for left, right in zip(found, expected):
            left, right = (torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in (left, right))
            assert torch.equal(left, right) if isinstance(right, torch.Tensor) else left == right, (left, right)
        return
    with pytest.raises((TypeError, ValueError)) as caught:
        call(**neighbour)
    # The first words of the message name the argument, or its field.
    names = (f"{argument}{behind}" for behind in (" ", ":", "'s ", "["))
    assert str(caught.value).startswith((*names, f"graph->{argument}: ", "a Tree's ")), caught.value


def public():
    """Every public function and method that takes arguments."""
    for name in treescan.__all__:
        value = getattr(treescan, name)
        if inspect.isfunction(value):
            yield name, value
    for name in ("from_parents", "from_edges", "pack", "collate", "reroot"):
        yield f"Tree.{name}", getattr(Tree, name)
    yield from ((f"numpy.{name}", getattr(arrays, name)) for name in arrays.__all__ if name[0].islower())
    for space, module in (("nn", nn), ("compat", compat)):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value):
                yield f"{space}.{name}", value.__init__
                yield f"{space}.{name}.forward", value.forward
            elif inspect.isfunction(value):
                yield f"{space}.{name}", value
            elif inspect.ismodule(value):
                yield from ((f"compat.{name}.{function}", getattr(value, function)) for function in value.__all__)


# Without arguments of these kinds, or told by strings alone, whose errors have tests of their own.
ELSEWHERE = {"synchronize", "set_cuda_strategy", "compat.MinimumSpanningTree", "compat.MinimumSpanningTree.forward"}


@pytest.mark.parametrize(("name", "function"), list(public()))
def test_the_table_is_whole(name, function):
    parameters = parameters_of(function)
    if parameters and name not in ELSEWHERE:
        assert set(TABLE[name][1]) == set(parameters)
