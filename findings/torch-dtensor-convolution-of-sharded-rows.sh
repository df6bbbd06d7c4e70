#!/usr/bin/env bash
# DTensor: a convolution along the dimension that is sharded gives each process a part and calls it the whole
#
# Versions:  torch 2.13.0, two processes with gloo
# Expected:  conv1d of a sequence sharded along its length (the first layer of a Mamba block), or conv2d of pictures sharded
#            by rows, exchanges the borders, gathers first, or raises. Whatever comes back, full_tensor() is what one
#            process gets.
# Behaviour: each process convolves its own part as if there were nothing beside it. The result says Replicate and the whole
#            shape, but its local tensor is the part, a different one in each process, and full_tensor() hands that out.
#            Sharding by batch is right, by channels raises.
# Seen:      length 8: placed (Replicate(),), shape 8, local 4, full_tensor 4; rows likewise; batch: off by 0
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/work.py" <<'PY'
import sys
import warnings

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn.functional import conv1d, conv2d


def work(rank, store):
    warnings.simplefilter("ignore")
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    for name, convolution, shape, kernel, dim, right in (
        ("length", conv1d, (1, 3, 8), (2, 3, 3), 2, False),
        ("rows", conv2d, (1, 3, 8, 8), (2, 3, 3, 3), 2, False),
        ("batch", conv2d, (2, 3, 8, 8), (2, 3, 3, 3), 0, True),
    ):
        x, weight = torch.randn(shape), torch.randn(kernel)
        one = convolution(x, weight, padding=1)
        y = convolution(distribute_tensor(x, mesh, [Shard(dim)]), distribute_tensor(weight, mesh, [Replicate()]), padding=1)
        sizes = [tuple(t.shape) for t in (y, y.to_local(), y.full_tensor())]
        if rank == 0:
            print(f"sharded {name}: says {y.placements}; whole, local, full_tensor: {sizes}; alone: {tuple(one.shape)}")
        same = y.full_tensor().shape == one.shape and torch.allclose(y.full_tensor(), one, atol=1e-5)
        assert same == right and y.shape == one.shape, name
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(work, (sys.argv[1],), nprocs=2)
PY
"$folder/env/bin/python" "$folder/work.py" "$folder/store"
