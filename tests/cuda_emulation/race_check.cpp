#include "race_check.h"

#include <algorithm>
#include <new>

namespace treescan::emulation {

static Times later(const Times &a, const Times &b) {
  if (a == b) return a;
  auto times = std::make_shared<std::vector<uint32_t>>(*a);
  for (size_t i = 0; i < times->size(); ++i) (*times)[i] = std::max((*times)[i], (*b)[i]);
  return times;
}

static Clock join(const Clock &a, const Clock &b) {
  if (a == b || !b) return a;
  if (!a) return b;
  auto clock = std::make_shared<std::map<uint32_t, Times>>(*a);
  for (const auto &[block, times] : *b) {
    Times &mine = (*clock)[block];
    mine = mine ? later(mine, times) : times;
  }
  return clock;
}

// The clock with the present times of these threads of one block in it.
static Clock with_times(const Clock &known, ThreadClock *const *threads, int count) {
  const uint32_t block = threads[0]->block;
  auto clock =
      known ? std::make_shared<std::map<uint32_t, Times>>(*known) : std::make_shared<std::map<uint32_t, Times>>();
  Times &mine = (*clock)[block];
  auto times = mine ? std::make_shared<std::vector<uint32_t>>(*mine)
                    : std::make_shared<std::vector<uint32_t>>(threads[0]->block_threads);
  for (int i = 0; i < count; ++i) (*times)[threads[i]->thread] = threads[i]->time;
  mine = times;
  return clock;
}

// The lanes of the record that the thread knows nothing of.
static uint32_t unknown_lanes(const ThreadClock &thread, const Record &record) {
  uint32_t lanes = record.lanes;
  if (record.block == thread.block && record.warp == thread.thread / 32) lanes &= ~(1u << thread.thread % 32);
  if (!lanes || !thread.known) return lanes;
  const auto times = thread.known->find(record.block);
  if (times == thread.known->end()) return lanes;
  uint32_t unknown = 0;
  for (; lanes; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    if ((*times->second)[record.warp * 32u + static_cast<uint32_t>(lane)] < record.time) unknown |= 1u << lane;
  }
  return unknown;
}

// Whether two accesses of different threads that nothing orders may not both be.
static bool collide(const Record &a, const Record &b) {
  return a.bytes & b.bytes && (writes(a.access) || writes(b.access)) && !(is_atomic(a.access) && is_atomic(b.access));
}

// Whether whatever collides with the earlier record collides with the later one too, so that the earlier can go once it
// is known to the later.
static bool covers(const Record &later, const Record &earlier) {
  return !(earlier.bytes & ~later.bytes) && (later.access == earlier.access || later.access == Access::write ||
                                             (writes(later.access) && is_atomic(earlier.access)));
}

static uint64_t warp_key(const Record &record) { return uint64_t{record.block} << 16 | record.warp; }

// Adds to the records of a list, as a further lane where the rest is the same.
static void append(std::vector<Record> &records, const Record &record) {
  for (Record &r : records) {
    if (warp_key(r) == warp_key(record) && r.time == record.time && r.site == record.site && r.bytes == record.bytes &&
        r.access == record.access) {
      r.lanes |= record.lanes;
      return;
    }
  }
  records.push_back(record);
}

void RaceCheck::new_era() {
  ++era_;
  fenced_ = false;
  flags_.clear();
  more_in_use_ = 0;
}

void RaceCheck::barrier(ThreadClock *const *threads, int count) {
  Clock known = threads[0]->known;
  for (int i = 1; i < count; ++i) known = join(known, threads[i]->known);
  known = with_times(known, threads, count);
  for (int i = 0; i < count; ++i) {
    threads[i]->known = known;
    ++threads[i]->time;
  }
}

void RaceCheck::fence(ThreadClock &thread) {
  fenced_ = true;
  thread.known = join(thread.known, thread.received);
  thread.received = nullptr;
  ThreadClock *const itself = &thread;
  thread.released = with_times(thread.known, &itself, 1);
  ++thread.time;
}

void RaceCheck::atomic(ThreadClock &thread, const void *address, Access access) {
  if (!fenced_) return;
  Clock &flag = flags_[reinterpret_cast<uintptr_t>(address)];
  const Clock earlier = flag;
  if (access == Access::atomic_store) flag = thread.released;
  if (access == Access::atomic_update) flag = join(flag, thread.released);
  if (reads(access)) thread.received = join(thread.received, earlier);
}

void RaceCheck::forget(const void *begin, size_t bytes) {
  const auto first = reinterpret_cast<uintptr_t>(begin);
  flags_.erase(flags_.lower_bound(first), flags_.lower_bound(first + bytes));
}

bool RaceCheck::access(Shadow &shadow, size_t offset, size_t bytes, Access access, const ThreadClock &thread,
                       const void *site, Record *other) {
  bool collides = false;
  for (size_t end = offset + bytes; offset < end;) {
    const size_t next = std::min(end, offset / 4 * 4 + 4);
    const auto mask = static_cast<uint8_t>(((1u << (next - offset)) - 1) << offset % 4);
    const Record record{
        thread.block, thread.time, site, 1u << thread.thread % 32, static_cast<uint16_t>(thread.thread / 32),
        mask,         access};
    collides |= add(shadow.words_[offset / 4], record, thread, other);
    offset = next;
  }
  return collides;
}

bool RaceCheck::add(Shadow::Word &word, const Record &record, const ThreadClock &thread, Record *other) {
  if (word.era != era_) word = {era_, 0, {}};
  bool collides = false;
  // Notes a collision, and whether the record has nothing more to say.
  const auto superseded = [&](const Record &earlier) {
    const uint32_t unknown = unknown_lanes(thread, earlier);
    if (unknown && collide(earlier, record)) {
      collides = true;
      *other = earlier;
      other->lanes = unknown & ~(unknown - 1);
    }
    return !unknown && covers(record, earlier);
  };
  const auto prune = [&](std::vector<Record> &records) {
    records.erase(std::remove_if(records.begin(), records.end(), superseded), records.end());
  };

  const bool first_is_free = !word.first.bytes || superseded(word.first);
  if (word.more) {
    More &more = more_[word.more - 1];
    prune(more.writes);
    if (writes(record.access)) {
      for (auto reads = more.reads.begin(); reads != more.reads.end();) {
        prune(reads->second);
        reads = reads->second.empty() ? more.reads.erase(reads) : std::next(reads);
      }
    } else {
      const auto reads = more.reads.find(warp_key(record));
      if (reads != more.reads.end()) {
        // The lane's own earlier reads.
        for (Record &r : reads->second)
          if (covers(record, r)) r.lanes &= ~record.lanes;
        prune(reads->second);
      }
    }
  }
  if (first_is_free) {
    word.first = record;
  } else if (word.first.site == record.site && word.first.time == record.time &&
             warp_key(word.first) == warp_key(record) && word.first.bytes == record.bytes &&
             word.first.access == record.access) {
    word.first.lanes |= record.lanes;
  } else {
    if (!word.more) {
      if (more_in_use_ == more_.size()) more_.emplace_back();
      more_[more_in_use_].writes.clear();
      more_[more_in_use_].reads.clear();
      word.more = static_cast<uint32_t>(++more_in_use_);
    }
    More &more = more_[word.more - 1];
    append(writes(record.access) ? more.writes : more.reads[warp_key(record)], record);
  }
  return collides;
}

Shadow::Shadow(size_t bytes)
    : words_(static_cast<Word *>(std::calloc(bytes / 4 + 1, sizeof(Word)))), written_(bytes / 4 + 1) {
  if (!words_) throw std::bad_alloc();
}

void Shadow::mark_written(size_t offset, size_t bytes) {
  for (size_t end = offset + bytes; offset < end;) {
    if (offset % 4 == 0 && offset + 4 <= end) {
      written_[offset / 4] = 15;
      offset += 4;
    } else {
      written_[offset / 4] = static_cast<uint8_t>(written_[offset / 4] | 1u << offset % 4);
      ++offset;
    }
  }
}

void Shadow::copy_written(size_t offset, const Shadow &from, size_t from_offset, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    const auto bit = static_cast<uint8_t>(1u << (offset + i) % 4);
    uint8_t &word = written_[(offset + i) / 4];
    word = static_cast<uint8_t>(from.is_written(from_offset + i, 1) ? word | bit : word & ~bit);
  }
}

bool Shadow::is_written(size_t offset, size_t bytes) const {
  for (size_t i = offset; i < offset + bytes; ++i)
    if (!(written_[i / 4] >> i % 4 & 1)) return false;
  return true;
}

}  // namespace treescan::emulation
