"""Calls of every kind from Python, over the library in a given folder: `make sanitize` runs it with the sanitizers' library."""

import sys

import torch

import treescan

folder = sys.argv[1]
if f"{folder}/libtreescan" not in open("/proc/self/maps").read():
    sys.exit(f"treescan's library wasn't loaded from {folder}")
calls = 0
for threads in (1, 3, None):
    treescan.set_num_threads(threads)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        for shape in ((2, 5, 4, 6), (1, 33, 1, 1), (3, 16, 7, 3)):
            x = torch.rand(shape).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
            tree = treescan.build_tree(x.detach())
            for direction in ("up", "down", "both"):
                y = treescan.tree_scan(x, x / 2, tree, direction=direction)
                torch.autograd.grad(y.float().square().sum(), x)
                calls += 2
            flat = x.flatten(2)
            computed = dtype if dtype == torch.float64 else torch.float32
            A = -torch.rand(shape[1], 3, dtype=computed)
            z = treescan.selective_tree_scan(flat, flat, A, A, A, tree=tree)
            torch.autograd.grad(z.float().sum(), x)
            calls += 3
    for bad in ([[1, 0]], [[0, 7]], [[0, -5]]):
        try:
            treescan.Tree.from_parents(torch.tensor(bad, dtype=torch.int32))
        except ValueError as error:
            calls += len(str(error)) > 20
        else:
            sys.exit(f"{bad} was taken for a tree")
print(f"sanitized Python: {calls} calls")
