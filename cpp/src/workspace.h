// Scratch memory of one call: measured first, then carved out of the caller's memory or the library's own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "status.h"

namespace treescan {

// The size of a by b pieces.
inline int64_t times(int64_t a, int64_t b) {
  if (a > 0 && b > INT64_MAX / a) fail(TREESCAN_TOO_LARGE, "workspace: ", a, " times ", b, " overflows");
  return a * b;
}

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

// A place inside a piece; none while no block is there and sizes are only added up.
template <class T>
T *inside(T *piece, int64_t offset) {
  return piece ? piece + offset : nullptr;
}

struct FreeBlock {
  void operator()(void *block) const { ::operator delete(block, std::align_val_t{64}); }
};
using Block = std::unique_ptr<void, FreeBlock>;

// Wishes for large pages, where the system has them for the asking: reads all over a large block wait less for their addresses.
inline void wish_for_large_pages([[maybe_unused]] void *block, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__)
  constexpr int64_t worthwhile = int64_t{4} << 20, page = 64 << 10;  // no system has larger ordinary pages
  if (bytes < worthwhile) return;
  const auto first = (reinterpret_cast<uintptr_t>(block) + page - 1) / page * page;
  madvise(reinterpret_cast<void *>(first), static_cast<size_t>(bytes - page), MADV_HUGEPAGE);
#endif
}

inline Block allocate(int64_t bytes) {
  Block block(::operator new(static_cast<size_t>(bytes > 0 ? bytes : 64), std::align_val_t{64}));
  wish_for_large_pages(block.get(), bytes);
  return block;
}

// The library's own scratch memory: each calling thread keeps its last block, up to 32 MiB, since the system would hand out
// a fresh one page by page on every call.
class OwnScratch {
 public:
  explicit OwnScratch(int64_t bytes) : kept_(slot()) {
    if (kept_.busy || bytes > most_kept) {
      block_ = allocate(bytes);
      return;
    }
    if (kept_.size < bytes) {
      kept_.block.reset();
      kept_.size = 0;
      kept_.block = allocate(bytes);
      kept_.size = bytes;
    }
    kept_.busy = borrowed_ = true;
  }
  ~OwnScratch() {
    if (borrowed_) kept_.busy = false;
  }
  OwnScratch(const OwnScratch &) = delete;
  OwnScratch &operator=(const OwnScratch &) = delete;

  void *get() const { return borrowed_ ? kept_.block.get() : block_.get(); }

 private:
  struct Kept {
    Block block;
    int64_t size = 0;
    bool busy = false;
  };
  static Kept &slot() {
    static thread_local Kept kept;
    return kept;
  }
  static constexpr int64_t most_kept = int64_t{32} << 20;

  Kept &kept_;
  Block block_;
  bool borrowed_ = false;
};

// Runs body(carver) on scratch memory that `layout(carver)` describes, following the protocol of treescan.h.
template <class Layout, class Body>
void with_scratch(treescan_workspace *workspace, Layout &&layout, Body &&body) {
  Carver measure;
  layout(measure);
  const int64_t needed = std::max<int64_t>(measure.used(), 64);  // 0 would look like a query when it is allocated
  if (!workspace) {
    const OwnScratch scratch(needed);
    Carver carver(scratch.get());
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
