#!/usr/bin/env bash
# A custom op with register_autograd has forward-mode derivatives that are 0, without an error
#
# Versions:  torch 2.13.0
# Expected:  torch.library.register_autograd gives a backward formula only, so torch.func.jvp of the op raises, as an
#            autograd.Function without jvp does and as torch's own ops without a forward formula do.
# Behaviour: the tangent is lost: jvp and jacfwd are zeros, and so is whatever such an op contributes to a larger
#            function's. torch.func's reverse modes do raise.
# Seen:      x -> 2x: backward 2, jvp 0, jacfwd 0; the same as an autograd.Function: RuntimeError, no jvp
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import torch


@torch.library.custom_op("findings::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


twice.register_autograd(lambda ctx, grad: grad * 2, setup_context=lambda ctx, inputs, output: None)


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x * 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


one = torch.ones(1)
x = torch.ones(1, requires_grad=True)
(backward,) = torch.autograd.grad(twice(x), x)
value, tangent = torch.func.jvp(twice, (one,), (one,))
jacobian = torch.func.jacfwd(twice)(one).item()
print("custom op: backward", backward.item(), "jvp", tangent.item(), "jacfwd", jacobian)
assert backward.item() == 2 and tangent.item() == 0 and jacobian == 0
try:
    torch.func.jvp(Twice.apply, (one,), (one,))
    raise SystemExit("autograd.Function is silent, too")
except RuntimeError as error:
    print("autograd.Function:", str(error).splitlines()[0])
PY
