#!/usr/bin/env bash
# In bfloat16 the gradient of rows[index] stops at 256; that of index_select, gather and expand doesn't
#
# Versions:  torch 2.13.0, CPU
# Expected:  row 0 taken 3000 times has the gradient 3000 (3008 in bfloat16), however it is taken: rows[index],
#            rows.index_select(0, index) and rows.gather say the same thing.
# Behaviour: the backward of rows[index] and of embedding adds one by one in bfloat16, where 256 + 1 is 256; the others, and
#            index_add_ of rows, keep wider sums. Likewise index_add_ of vectors, index_put_ and segment_reduce stop while
#            scatter_add_ doesn't; segment_reduce's mean of ones is 0.085. In float16 the limit is 2048.
# Seen:      gradient by index_select, gather, expand 3008; rows[index], embedding 256. Mean of ones by segment_reduce 0.085
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import torch
from torch.nn.functional import embedding

index = torch.zeros(3000, dtype=torch.long)
ways = {
    "index_select": lambda rows: rows.index_select(0, index),
    "gather": lambda rows: rows.gather(0, index[:, None].expand(-1, 4)),
    "expand": lambda rows: rows.expand(3000, 4),
    "rows[index]": lambda rows: rows[index],
    "embedding": lambda rows: embedding(index, rows),
}
found = {}
for name, way in ways.items():
    rows = torch.ones(1, 4, dtype=torch.bfloat16, requires_grad=True)
    way(rows).sum().backward()
    found[name] = rows.grad[0, 0].item()
mean = torch.segment_reduce(torch.ones(3000, dtype=torch.bfloat16), "mean", lengths=torch.tensor([3000])).item()
print(found, "mean of ones by segment_reduce:", mean)
assert list(found.values()) == [3008, 3008, 3008, 256, 256] and mean < 0.1
PY
