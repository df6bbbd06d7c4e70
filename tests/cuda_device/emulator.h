// A real device has no schedules to choose from, and compute-sanitizer says what is wrong on it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace treescan::emulation {

enum class Schedule { its_own };

struct Options {
  Schedule schedule = Schedule::its_own;
};

struct Report {
  int64_t live_allocations = 0;
  std::string text() const { return {}; }
};

inline Report run(const Options &, const std::function<void()> &host_code) {
  host_code();
  return {};
}

}  // namespace treescan::emulation
