// Scratch memory of one call: measured first, then carved out of the caller's memory or the library's own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "status.h"

namespace treescan {

// Hands out aligned pieces of a block. Over no block it only adds up what would be needed, so one layout function
// serves both the measuring and the carving.
class Carver {
 public:
  explicit Carver(void *block = nullptr) : block_(static_cast<char *>(block)) {}

  template <class T>
  T *take(int64_t count) {
    constexpr int64_t alignment = 64;
    if (count < 0 || count > (INT64_MAX - used_ - alignment) / static_cast<int64_t>(sizeof(T)))
      fail(TREESCAN_TOO_LARGE, "workspace: the scratch memory for this size doesn't fit 64 bits");
    char *piece = block_ ? block_ + used_ : nullptr;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + alignment - 1) / alignment * alignment;
    return reinterpret_cast<T *>(piece);
  }

  int64_t used() const { return used_; }

 private:
  char *block_;
  int64_t used_ = 0;
};

struct FreeBlock {
  void operator()(void *block) const { ::operator delete(block, std::align_val_t{64}); }
};
using Block = std::unique_ptr<void, FreeBlock>;

inline Block allocate(int64_t bytes) {
  return Block(::operator new(static_cast<size_t>(bytes > 0 ? bytes : 64), std::align_val_t{64}));
}

// Runs body(carver) on scratch memory that `layout(carver)` describes, following the protocol of treescan.h.
template <class Layout, class Body>
void with_scratch(treescan_workspace *workspace, Layout &&layout, Body &&body) {
  Carver measure;
  layout(measure);
  const int64_t needed = measure.used();
  if (!workspace) {
    const Block block = allocate(needed);
    Carver carver(block.get());
    body(carver);
    return;
  }
  if (!workspace->data) {
    workspace->size = needed;
    return;
  }
  if (workspace->size < needed)
    fail(TREESCAN_INVALID_ARGUMENT, "workspace: expected at least ", needed, " bytes, got ", workspace->size);
  if (reinterpret_cast<uintptr_t>(workspace->data) % 64 != 0)
    fail(TREESCAN_INVALID_ARGUMENT, "workspace: expected memory aligned to 64 bytes, got ", workspace->data);
  Carver carver(workspace->data);
  body(carver);
}

}  // namespace treescan
