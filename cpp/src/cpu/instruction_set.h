// Which build of the kernels runs: chosen at run time, the same answer to the last bit in each.
#pragma once

namespace treescan {

enum class InstructionSet { baseline, avx2, avx512 };

// The one in use: the best that this machine has, unless set_instruction_set chose another.
InstructionSet instruction_set();

// "auto", "baseline", "avx2" or "avx512"; fails if this build or machine doesn't have it.
void set_instruction_set(const char *name);

const char *instruction_set_name(InstructionSet set);

// Whether this build has it and this machine can run it.
bool has_instruction_set(InstructionSet set);

}  // namespace treescan
