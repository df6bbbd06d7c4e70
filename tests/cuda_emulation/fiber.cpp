#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace treescan::emulation {

static Fiber *running;   // the fiber that a switch arrives at
static Fiber *previous;  // and the one that it comes from

Fiber::~Fiber() {
  if (stack_) munmap(static_cast<char *>(stack_) - getpagesize(), size + static_cast<size_t>(getpagesize()));
}

#ifndef TREESCAN_UCONTEXT_FIBERS
// Saves what a function must preserve, leaves its stack pointer at *rdi and goes on from the one in rsi.
asm(R"(
.text
.type treescan_switch_stacks, @function
treescan_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size treescan_switch_stacks, .-treescan_switch_stacks
)");
extern "C" void treescan_switch_stacks(void **from, void *to);
#endif

void Fiber::start(void (*entry)()) {
  const size_t page = static_cast<size_t>(getpagesize());
  if (!stack_) {
    void *memory =
        mmap(nullptr, page + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, page, PROT_NONE);  // an overflow stops here
    stack_ = static_cast<char *>(memory) + page;
    bottom_ = stack_;
    bytes_ = size;
  }
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack_, size);
  fake_stack_ = nullptr;
#endif
  entry_ = entry;
#ifdef TREESCAN_UCONTEXT_FIBERS
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = size;
  makecontext(&context_, begin, 0);
#else
  // The switch pops six registers and returns into begin, which finds the stack as after a call: 8 past a multiple
  // of 16.
  auto *top = reinterpret_cast<uintptr_t *>(static_cast<char *>(stack_) + size) - 2;
  *top = reinterpret_cast<uintptr_t>(&Fiber::begin);
  top[1] = 0;
  for (int i = 0; i < 6; ++i) *--top = 0;
  stack_pointer_ = top;
#endif
}

void Fiber::begin() {
  running->arrived();
  running->entry_();
  __builtin_trap();
}

void Fiber::switch_to(Fiber &from, Fiber &to) {
  running = &to;
  previous = &from;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.bottom_, to.bytes_);
#endif
#ifdef TREESCAN_UCONTEXT_FIBERS
  swapcontext(&from.context_, &to.context_);
#else
  treescan_switch_stacks(&from.stack_pointer_, to.stack_pointer_);
#endif
  from.arrived();
}

void Fiber::arrived() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack_, &previous->bottom_, &previous->bytes_);
#endif
}

}  // namespace treescan::emulation
