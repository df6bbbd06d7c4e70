#!/usr/bin/env bash
# torch.onnx exports logcumsumexp, log1p and expm1 by their formulas, which lose what they are there to keep
#
# Versions:  torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0
# Expected:  scans of decays in logarithms are written with these functions since they neither overflow nor cancel; a model
#            exported to ONNX keeps that, or the export refuses.
# Behaviour: they become Log(CumSum(Exp(x - max(x)))), Log(1 + x) and Exp(x) - 1. The first is -inf wherever the greatest
#            value, of all that come later too, is about 104 above; the others are 0 for x below 6e-8.
# Seen:      logcumsumexp of 100, 200, 300: torch 100, 200, 300; exported -inf, 200.017, 300. log1p and expm1 of 1e-8: 1e-8;
#            0
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


class Logarithms(torch.nn.Module):
    def forward(self, x, small):
        return torch.logcumsumexp(x, 0), torch.log1p(small), torch.expm1(small)


x, small = torch.tensor([100.0, 200.0, 300.0]), torch.tensor([1e-8])
torch.onnx.export(Logarithms(), (x, small), "logarithms.onnx", dynamo=True, verbose=False)
exported = onnxruntime.InferenceSession("logarithms.onnx").run(None, {"x": x.numpy(), "small": small.numpy()})
eager = [value.numpy() for value in Logarithms()(x, small)]
for name, right, wrong in zip(("logcumsumexp", "log1p", "expm1"), eager, exported):
    print(f"{name}: torch {right}, exported {wrong}")
assert np.array_equal(eager[0], x) and exported[0][0] == -np.inf
assert eager[1] > 0 and eager[2] > 0 and exported[1] == exported[2] == 0
PY
