// One stack for each CUDA thread, and the switch between them. Of our own where the processor is x86-64, since ucontext
// asks the kernel for the signal mask at every switch.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || defined(TREESCAN_UCONTEXT)
#define TREESCAN_UCONTEXT_FIBERS
#include <ucontext.h>
#endif

namespace treescan::emulation {

class Fiber {
 public:
  // A default fiber stands for the stack that the program started on.
  Fiber() = default;
  Fiber(const Fiber &) = delete;
  Fiber &operator=(const Fiber &) = delete;
  ~Fiber();

  // Makes the next switch to this fiber call entry, which must not return. Whatever the fiber was in the middle of is
  // forgotten.
  void start(void (*entry)());

  static void switch_to(Fiber &from, Fiber &to);

  bool holds(const void *address) const {
    return address >= stack_ && address < static_cast<const char *>(stack_) + size;
  }

  static constexpr size_t size = 256 * 1024;  // of which only touched pages take memory

 private:
  void arrived();

  void *stack_ = nullptr;
  void (*entry_)() = nullptr;
#ifdef TREESCAN_UCONTEXT_FIBERS
  ucontext_t context_{};
#else
  void *stack_pointer_ = nullptr;
#endif
  // For AddressSanitizer, which keeps track of the stack in use.
  void *fake_stack_ = nullptr;
  const void *bottom_ = nullptr;
  size_t bytes_ = 0;

  static void begin();
};

}  // namespace treescan::emulation
