// Which accesses are ordered, and which of those that aren't collide.
//
// Every thread has a time, which goes up whenever others may come to know what it did: at a barrier, at __syncwarp, at
// a fence. A clock says up to which time of which threads its owner knows. An access is ordered before whatever its
// thread's time then is known to. All clocks start anew at a launch and at a grid barrier (an era), which order
// everything before them.
//   block barrier, __syncwarp   everyone knows all that any of them knew, and their times
//   fence, then an atomic       the clock at the fence goes with the value
//   atomic, then a fence        what came with the value is known
// Shuffles and votes order nothing, and nor do atomics without fences.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

namespace treescan::emulation {

// Clocks are never changed once others may hold them, so copying one is cheap: after a barrier a whole block has the
// same.
using Times = std::shared_ptr<const std::vector<uint32_t>>;  // of the threads of one block
using Clock = std::shared_ptr<const std::map<uint32_t, Times>>;

struct ThreadClock {
  uint32_t block, thread, block_threads;
  uint32_t time = 1;
  Clock known;     // null: nothing
  Clock released;  // at the last fence: what atomics carry from here
  Clock received;  // came with atomics, and counts from the next fence on
};

enum class Access : uint8_t { read = 0, write = 1, atomic_read = 2, atomic_update = 3, atomic_store = 7 };
inline bool writes(Access access) { return static_cast<int>(access) & 1; }
inline bool is_atomic(Access access) { return static_cast<int>(access) & 2; }
inline bool reads(Access access) { return access != Access::write && access != Access::atomic_store; }

// An access, or the same one of several lanes of a warp at the same time.
struct Record {
  uint32_t block, time;
  const void *site;
  uint32_t lanes;
  uint16_t warp;
  uint8_t bytes;  // of its word, a bit for each
  Access access;
};

// What is known of a piece of memory, for each 32-bit word of it: the accesses that a later one could collide with, and
// whether its bytes were ever written.
class Shadow {
 public:
  explicit Shadow(size_t bytes);

  void mark_written(size_t offset, size_t bytes);
  void copy_written(size_t offset, const Shadow &from, size_t from_offset, size_t bytes);
  bool is_written(size_t offset, size_t bytes) const;

 private:
  friend class RaceCheck;
  struct Word {
    uint32_t era;   // records of another era don't count
    uint32_t more;  // 0, or one more than the number of further records
    Record first;   // empty if it has no bytes
  };
  struct Free {
    void operator()(void *memory) const { std::free(memory); }
  };
  std::unique_ptr<Word[], Free> words_;
  std::vector<uint8_t> written_;
};

class RaceCheck {
 public:
  void new_era();

  // Makes all of these threads know what any of them does, and their times; they belong to one block.
  void barrier(ThreadClock *const *threads, int count);
  void fence(ThreadClock &thread);
  void atomic(ThreadClock &thread, const void *address, Access access);
  void forget(const void *begin, size_t bytes);  // the flags in memory that goes away

  // Notes an access. Returns whether it collides with an earlier one, which `*other` then is.
  bool access(Shadow &shadow, size_t offset, size_t bytes, Access access, const ThreadClock &thread, const void *site,
              Record *other);

 private:
  // Many threads may read a word or count in it at once. Reads are found by their warp, since only writers meet them
  // all.
  struct More {
    std::vector<Record> writes;
    std::unordered_map<uint64_t, std::vector<Record>> reads;  // plain and atomic
  };

  bool add(Shadow::Word &word, const Record &record, const ThreadClock &thread, Record *other);

  uint32_t era_ = 0;
  bool fenced_ = false;  // in this era; without fences atomics carry nothing
  std::map<uintptr_t, Clock> flags_;
  std::vector<More> more_;
  size_t more_in_use_ = 0;
};

}  // namespace treescan::emulation
