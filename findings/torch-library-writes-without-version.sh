#!/usr/bin/env bash
# An op registered through torch.library.Library that writes into its argument isn't counted as writing
#
# Versions:  torch 2.13.0, numpy 2.4.6
# Expected:  an op whose schema says Tensor(a!) moves that tensor's version counter, so that backward refuses a saved tensor
#            that was overwritten, as after torch's own out= functions and after ops made by custom_op(mutates_args=...).
# Behaviour: define and impl on a Library leave the counter to the kernel. One that writes raw memory (C, numpy) must move
#            it itself, though the schema says all that is needed; else gradients are silently wrong.
# Seen:      y = w·b with b = 1, then b = 3 by the op: version 0 -> 0 and gradient 3 instead of 1 or an error; with
#            custom_op: an error
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import torch

library = torch.library.Library("findings", "DEF")
library.define("fill(Tensor(a!) out) -> ()")
library.impl("fill", lambda out: out.numpy().fill(3), "CPU")


@torch.library.custom_op("findings::fill_custom", mutates_args=("out",))
def fill_custom(out: torch.Tensor) -> None:
    out.numpy().fill(3)


def gradient(fill):
    w, b = torch.ones(1, requires_grad=True), torch.ones(1)
    y = w * b
    fill(b)
    print("version after the write:", b._version)
    y.backward()
    return w.grad.item()


wrong = gradient(torch.ops.findings.fill)
print("Library: gradient", wrong)
assert wrong == 3
try:
    raise SystemExit(f"custom_op: gradient {gradient(fill_custom)}")
except RuntimeError as error:
    print("custom_op:", str(error).splitlines()[0])
    assert "inplace" in str(error)
PY
