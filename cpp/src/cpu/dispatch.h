// Kernel files are compiled once for each instruction set, into namespaces of the sets' names.
#pragma once

#include "cpu/instruction_set.h"

#if defined(TREESCAN_X86_KERNELS)
// Declares a function of a kernel file.
#define TREESCAN_KERNEL_FUNCTION(declaration) \
  namespace baseline {                        \
  declaration;                                \
  }                                           \
  namespace avx2 {                            \
  declaration;                                \
  }                                           \
  namespace avx512 {                          \
  declaration;                                \
  }
// Picks its build for the instruction set in use.
#define TREESCAN_KERNEL(function)                                  \
  (instruction_set() == InstructionSet::avx512 ? avx512::function  \
   : instruction_set() == InstructionSet::avx2 ? avx2::function    \
                                               : baseline::function)
#else
#define TREESCAN_KERNEL_FUNCTION(declaration) \
  namespace baseline {                        \
  declaration;                                \
  }
#define TREESCAN_KERNEL(function) baseline::function
#endif
