// What the processor is told of roundings and of numbers too small to be normal: a setting of each thread's own. A call's threads
// take that of the caller, so that its results don't depend on who computes what.
#pragma once

#include <cstdint>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace treescan {

inline uint64_t floating_point_control() {
#if defined(__SSE__)
  return _mm_getcsr() & ~0x3fu;  // without the flags of what has happened
#elif defined(__aarch64__) && defined(__GNUC__)
  uint64_t control;
  __asm__ volatile("mrs %0, fpcr" : "=r"(control));
  return control;
#else
  return 0;
#endif
}

inline void set_floating_point_control([[maybe_unused]] uint64_t control) {
#if defined(__SSE__)
  _mm_setcsr(static_cast<unsigned>(control));
#elif defined(__aarch64__) && defined(__GNUC__)
  __asm__ volatile("msr fpcr, %0" : : "r"(control));
#endif
}

// This thread's setting, for as long as the object lives.
class FloatingPointControl {
 public:
  explicit FloatingPointControl(uint64_t control) : outer_(floating_point_control()), differs_(control != outer_) {
    if (differs_) set_floating_point_control(control);
  }
  ~FloatingPointControl() {
    if (differs_) set_floating_point_control(outer_);
  }
  FloatingPointControl(const FloatingPointControl &) = delete;
  FloatingPointControl &operator=(const FloatingPointControl &) = delete;

 private:
  uint64_t outer_;
  bool differs_;
};

}  // namespace treescan
