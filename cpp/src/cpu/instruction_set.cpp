#include "cpu/instruction_set.h"

#include <atomic>
#include <cstring>

#include "status.h"

namespace treescan {

namespace {

constexpr InstructionSet all[] = {InstructionSet::avx512, InstructionSet::avx2, InstructionSet::baseline};
std::atomic<int> chosen{-1};  // -1: not looked for yet

InstructionSet best() {
  for (const InstructionSet set : all)
    if (has_instruction_set(set)) return set;
  return InstructionSet::baseline;
}

}  // namespace

bool has_instruction_set(InstructionSet set) {
#if defined(TREESCAN_X86_KERNELS)
  // The levels x86-64-v3 and x86-64-v4, feature by feature: compilers before gcc 12 don't know the levels' names.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2");
  if (set == InstructionSet::avx2) return avx2;
  if (set == InstructionSet::avx512)
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
#endif
  return set == InstructionSet::baseline;
}

InstructionSet instruction_set() {
  int set = chosen.load(std::memory_order_relaxed);
  if (set < 0) {
    set = static_cast<int>(best());
    chosen.store(set, std::memory_order_relaxed);
  }
  return static_cast<InstructionSet>(set);
}

const char *instruction_set_name(InstructionSet set) {
  switch (set) {
    case InstructionSet::avx512: return "avx512";
    case InstructionSet::avx2: return "avx2";
    default: return "baseline";
  }
}

void set_instruction_set(const char *name) {
  if (!name) fail(TREESCAN_INVALID_ARGUMENT, "name: expected an instruction set, got NULL");
  if (std::strcmp(name, "auto") == 0) {
    chosen.store(static_cast<int>(best()));
    return;
  }
  for (const InstructionSet set : all) {
    if (std::strcmp(name, instruction_set_name(set)) != 0) continue;
    if (!has_instruction_set(set))
      fail(TREESCAN_INVALID_ARGUMENT, "name: \"", name, "\" isn't in this build, or this machine can't run it; it has up to \"",
           instruction_set_name(best()), "\"");
    chosen.store(static_cast<int>(set));
    return;
  }
  fail(TREESCAN_INVALID_ARGUMENT, "name: expected \"auto\", \"baseline\", \"avx2\" or \"avx512\", got \"", name, "\"");
}

}  // namespace treescan
