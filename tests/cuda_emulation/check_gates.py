"""What the mutation runner and the nvcc gate make of small inputs, without a compiler."""

import mutate
import nvcc_gate

SOURCE = """
__global__ void first(int *x) {  // atomicAdd(x, 1);
  if (__syncthreads_or(x[0] > (1))) atomicAdd(&x[f(2)], 1);
  __syncthreads();
  __syncthreads();
}

template <int N>
__global__ void second(int *x,
                       int *y) {
  treescan::cuda::grid_sync();
}
"""

found = dict(mutate.mutants(SOURCE))
assert list(found) == ["first __syncthreads_or 1", "first atomicAdd 1", "first __syncthreads 1",
                       "first __syncthreads 2", "second grid_sync 1", "second grid_sync 1 by a block's"], list(found)
assert "if ((x[0] > (1))) atomicAdd(&x[f(2)], 1);" in found["first __syncthreads_or 1"]
assert "plain::atomicAdd(&x[f(2)], 1);\n  __syncthreads();\n  __syncthreads();" in found["first atomicAdd 1"]
assert "1);\n  __syncthreads();\n  (void)0;" in found["first __syncthreads 2"]
assert "  __syncthreads();\n}\n" in found["second grid_sync 1 by a block's"].split("second")[1]


def said(arch, registers, spilled, shared):
    return f"""ptxas info    : Compiling entry function '_Z1kPi' for 'sm_{arch}'
ptxas info    : Function properties for _Z1kPi
    {spilled} bytes stack frame, {spilled} bytes spill stores, 0 bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers{shared}
"""


def judge(registers=10, spilled=0, shared=", 256 bytes smem", budget=(10, 256)):
    text = "".join(said(arch, registers, spilled, shared) for arch in nvcc_gate.ARCHITECTURES)
    kernels = nvcc_gate.readable(nvcc_gate.parse(text))
    assert list(kernels) == ["k"], kernels
    return list(nvcc_gate.complaints(kernels, {"k": {f"sm_{arch}": budget for arch in nvcc_gate.ARCHITECTURES}}))


assert judge() == []
assert judge(shared="") == []
assert judge(registers=11)[0] == "k, sm_75: 11 registers, of at most 10"
assert judge(spilled=8)[0] == "k, sm_75: spills 8 bytes of registers"
assert judge(budget=(10, 255))[0] == "k, sm_75: 256 bytes of shared memory, of at most 255"
assert list(nvcc_gate.complaints({}, {"gone": {}})) == ["gone: has a budget, but isn't there"]
assert "k, sm_80: isn't compiled" in nvcc_gate.complaints(nvcc_gate.readable(nvcc_gate.parse(said(75, 1, 0, ""))), {})
