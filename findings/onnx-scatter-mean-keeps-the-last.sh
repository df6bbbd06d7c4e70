#!/usr/bin/env bash
# torch.onnx exports scatter_reduce's mean as a scatter that keeps the last value
#
# Versions:  torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0
# Expected:  means of rows by segment (of pixels by region, of children by parent), scatter_reduce(..., 'mean'), give in
#            onnxruntime what they give in torch; or the export refuses, since ONNX's ScatterElements has add, mul, max and
#            min and no mean.
# Behaviour: the export succeeds and writes a ScatterElements without a reduction, so each segment is its last row (which
#            one wins where indices repeat, ONNX leaves open). sum, prod, amax and amin are right.
# Seen:      segments 0 0 2 2 2 of 1 to 5 into fives: torch 1.5, 5, 4; exported 2, 5, 5; sum is the same in both
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
cd "$folder"
"$folder/env/bin/python" - <<'PY'
import numpy as np
import onnxruntime
import torch

index, values = torch.tensor([0, 0, 2, 2, 2]), torch.arange(1.0, 6.0)
same = {}
for reduction in "sum", "mean":

    class Segments(torch.nn.Module):
        def forward(self, index, values):
            return torch.full((3,), 5.0).scatter_reduce(0, index, values, reduction, include_self=False)

    torch.onnx.export(Segments(), (index, values), f"{reduction}.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(f"{reduction}.onnx")
    (exported,) = session.run(None, {"index": index.numpy(), "values": values.numpy()})
    eager = Segments()(index, values).numpy()
    print(f"{reduction}: torch {eager}, exported {exported}")
    same[reduction] = np.array_equal(eager, exported)
assert same == {"sum": True, "mean": False}, same
PY
