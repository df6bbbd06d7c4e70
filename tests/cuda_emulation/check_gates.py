"""What the mutation runner and the gates of nvcc make of small inputs, without a compiler."""

import mutate
import nvcc_gate
import sass_gate

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

class Team {
 public:
  explicit Team(int *x) : x_(x) {}
  void sync() { __syncthreads(); }
  bool any(bool predicate);

 private:
  int *x_;
};

template <class T>
__global__ void __launch_bounds__(64, sizeof(T) == 8 ? 1 : 2) third(Team team) {
  for (int i = 0; team.any(i < (2)); ++i) {
    if (i) team.sync();
  }
}
"""

found = dict(mutate.mutants(SOURCE))
assert list(found) == ["first __syncthreads_or 1", "first atomicAdd 1", "first __syncthreads 1",
                       "first __syncthreads 2", "second grid_sync 1", "second grid_sync 1 by a block's",
                       "Team::sync __syncthreads 1", "third any 1", "third sync 1"], list(found)
assert "if ((x[0] > (1))) atomicAdd(&x[f(2)], 1);" in found["first __syncthreads_or 1"]
assert "plain::atomicAdd(&x[f(2)], 1);\n  __syncthreads();\n  __syncthreads();" in found["first atomicAdd 1"]
assert "1);\n  __syncthreads();\n  (void)0;" in found["first __syncthreads 2"]
assert "for (int i = 0; (i < (2)); ++i)" in found["third any 1"]
assert "if (i) (void)0;" in found["third sync 1"]
assert "  __syncthreads();\n}\n" in found["second grid_sync 1 by a block's"].split("second")[1]


def said(arch, registers, spilled, shared, local=0):
    return f"""ptxas info    : Compiling entry function '_Z1kPi' for 'sm_{arch}'
ptxas info    : Function properties for _Z1kPi
    {local} bytes stack frame, {spilled} bytes spill stores, 0 bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers{shared}
"""


def judge(registers=10, spilled=0, shared=", 256 bytes smem", local=16, budget=(10, 256, 16)):
    kernels = nvcc_gate.parse("".join(said(arch, registers, spilled, shared, local)
                                      for arch in nvcc_gate.ARCHITECTURES))
    assert list(kernels) == ["_Z1kPi"], kernels
    return list(nvcc_gate.complaints(kernels, {"_Z1kPi": {f"sm_{arch}": budget for arch in nvcc_gate.ARCHITECTURES}}))


assert judge() == []
assert judge(shared="", local=0) == []
assert judge(registers=11)[0] == "_Z1kPi, sm_75: 11 registers, of at most 10"
assert judge(spilled=8)[0] == "_Z1kPi, sm_75: spills 8 bytes of registers"
assert judge(budget=(10, 255, 16))[0] == "_Z1kPi, sm_75: 256 bytes of shared memory, of at most 255"
assert judge(local=24)[0] == "_Z1kPi, sm_75: 24 bytes of local memory, of at most 16"
assert list(nvcc_gate.complaints({}, {"gone": {}})) == ["gone: has a budget, but isn't there"]
assert "_Z1kPi, sm_80: isn't compiled" in nvcc_gate.complaints(nvcc_gate.parse(said(75, 1, 0, "")), {})

assert nvcc_gate.readable([
    "_Z1kPi",
    "_ZN8treescan4cuda44_GLOBAL__N__9ba8aa4c_11_contexts_cu_2f24174d14write_contextsENS1_7LengthsEiPl",
    "_ZN12test_kernels16block_sum_kernelILb0EEEvPKiPi",
]) == ["k", "write_contexts", "test_kernels::block_sum_kernel<false>"]

code = sass_gate.parse("""
\t\tFunction : _Z4copyPi
        /*0000*/                   LDC R1, c[0x0][0x28] ;                          /* 0x00000a00ff017b82 */
                                                                                   /* 0x000fe20000000800 */
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;       /* 0x0000040402048981 */
        /*0020*/                   STG.E.64 desc[UR4][R8.64], R4 ;                 /* 0x0000000408007986 */
""")
assert code == {"copy": ["LDC R1, c[0x0][0x28]", "@!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64]",
                         "STG.E.64 desc[UR4][R8.64], R4"]}, code
assert sass_gate.look_for({"co.*": ["LDG.E.128"]}, code) == (
    ["copy: 1 LDG.E.128, as in @!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64]"], [])
assert sass_gate.look_for({"copy": ["STG.E.128", "E.64"]}, code) == ([], ["copy: holds no STG.E.128",
                                                                           "copy: holds no E.64"])
assert sass_gate.look_for({"cop": []}, code) == ([], ["cop: there is no such kernel"])
