// What the fuzz targets share: arguments drawn from the fuzzer's bytes, mostly right and now and then spoilt, in memory of
// exactly their extent; and calls in every way of giving them scratch memory.
//
// Every target is built twice. Where it `only_validates`, calls end once their arguments are judged, tens of thousands of times a
// second: tensors whose values nobody needs for that have no memory, and who reads them crashes.
//
// A view has no capacity, so the library can't know where the caller's memory ends. What the caller promises, the targets
// keep: a view that the library may accept has all the memory that its sizes and strides reach. Views that reach further
// than a target would allocate have none (NULL), and those that must be refused unread have a pointer to nowhere.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <string>
#include <vector>

#include "treescan/treescan.h"

namespace fuzzing {

#define REQUIRE(condition)                                                                                      \
  do {                                                                                                          \
    if (!(condition)) {                                                                                         \
      std::fprintf(stderr, "%s:%d: not true: %s (%s)\n", __FILE__, __LINE__, #condition, treescan_last_error()); \
      std::abort();                                                                                             \
    }                                                                                                           \
  } while (0)

#if defined(TREESCAN_FUZZ_VALIDATION)
constexpr bool only_validates = true;
#else
constexpr bool only_validates = false;
#endif

using Sizes = std::vector<int64_t>;

constexpr int32_t floating_dtypes[] = {TREESCAN_FLOAT32, TREESCAN_FLOAT64, TREESCAN_FLOAT16, TREESCAN_BFLOAT16};

inline int64_t dtype_size(int32_t dtype) {
  if (dtype == TREESCAN_FLOAT64 || dtype == TREESCAN_INT64) return 8;
  return dtype == TREESCAN_FLOAT32 || dtype == TREESCAN_INT32 ? 4 : 2;
}

// The fuzzer's bytes as choices. When they run out every choice is the first, and the first is the tame one.
class Data {
 public:
  Data(const uint8_t *bytes, size_t size) : provider_(bytes, size) {}

  int64_t range(int64_t low, int64_t high) { return provider_.ConsumeIntegralInRange<int64_t>(low, high); }
  bool flag() { return provider_.ConsumeBool(); }
  bool rarely() { return provider_.ConsumeIntegralInRange<uint8_t>(0, 23) == 23; }
  uint64_t bits() { return provider_.ConsumeIntegral<uint64_t>(); }
  int32_t any_int32() { return flag() ? provider_.ConsumeIntegral<int32_t>() : static_cast<int32_t>(range(-1, 8)); }
  std::string text() { return provider_.ConsumeRandomLengthString(12); }
  std::vector<uint8_t> bytes(size_t count) { return provider_.ConsumeBytes<uint8_t>(count); }

  template <class T, size_t count>
  T pick(const T (&values)[count]) {
    return values[range(0, count - 1)];
  }

  // Sizes and strides that nobody should give.
  int64_t hostile() {
    constexpr int64_t one = 1;
    constexpr int64_t values[] = {0,         -1,        1,          2,         INT64_MIN, INT64_MAX, INT32_MIN,
                                  INT32_MAX, one << 31, (one << 31) - 2, 46340,     46341,     one << 40, one << 56,
                                  (one << 56) + 1, -(one << 56), -(one << 57), INT64_MAX / 2, one << 20};
    return flag() ? pick(values) : static_cast<int64_t>(bits());
  }
  int64_t size(int64_t low, int64_t high) { return rarely() ? hostile() : range(low, high); }
  // Options: one of 1 to `last`, or not.
  int32_t choice(int32_t last) { return rarely() ? any_int32() : static_cast<int32_t>(range(1, last)); }

 private:
  FuzzedDataProvider provider_;
};

enum class Role { input, output };

class Tensor {
 public:
  // Numbers start as a mixture of small ones, large ones, infinities and NaN; indices (where `indices` > 0) as mostly
  // [0, indices). Outputs start as garbage. Some values `decide` whether arguments are valid.
  Tensor(Data &data, Role role, int32_t dtype, const Sizes &sizes, int64_t indices = 0, bool decides = false)
      : role_(role), dtype_(dtype) {
    view_.dtype = dtype;
    view_.device = TREESCAN_CPU;
    view_.ndim = static_cast<int32_t>(sizes.size());
    for (int i = 0; i < TREESCAN_MAX_DIMS; ++i) view_.sizes[i] = view_.strides[i] = 1;
    std::copy(sizes.begin(), sizes.end(), view_.sizes);
    choose_strides(data);
    bool no_memory = false;
    while (data.rarely()) spoil(data, no_memory);
    if (only_validates && !decides) {
      view_.data = no_memory ? nullptr : reinterpret_cast<void *>(uintptr_t{64});
      return;
    }
    give_memory(no_memory);
    fill(data, indices);
    before_ = memory_;
  }

  operator const treescan_tensor *() const { return missing_ ? nullptr : &view_; }

  // Is the view whole and of the type that was meant, so that its elements can be read here?
  bool is_real() const { return real_ && !missing_ && view_.dtype == dtype_; }
  int64_t count() const { return static_cast<int64_t>(elements_.size()); }
  int64_t size(int d) const { return view_.sizes[d]; }

  // Element i in row-major order.
  template <class T>
  T at(int64_t i) const {
    T value;
    std::memcpy(&value, &memory_[static_cast<size_t>(elements_[static_cast<size_t>(i)])], sizeof value);
    return value;
  }
  template <class T>
  void set(int64_t i, T value) {
    if (!real_ || view_.dtype == 0 || dtype_size(view_.dtype) != sizeof value || i >= count()) return;
    std::memcpy(&memory_[static_cast<size_t>(elements_[static_cast<size_t>(i)])], &value, sizeof value);
    before_ = memory_;
  }
  int64_t index(int64_t i) const { return view_.dtype == TREESCAN_INT64 ? at<int64_t>(i) : at<int32_t>(i); }

  bool untouched() const { return memory_ == before_; }
  // Has nothing been written but elements?
  bool intact() const {
    std::vector<uint8_t> expected = before_;
    for (const int64_t e : elements_)
      std::memcpy(&expected[static_cast<size_t>(e)], &memory_[static_cast<size_t>(e)],
                  static_cast<size_t>(dtype_size(view_.dtype)));
    return memory_ == expected;
  }
  const std::vector<uint8_t> &memory() const { return memory_; }
  void reset() { std::copy(before_.begin(), before_.end(), memory_.begin()); }

 private:
  static constexpr int64_t most_elements = 1 << 15;

  // Dense in any order of the dimensions, with gaps or backwards; inputs expanded too.
  void choose_strides(Data &data) {
    const auto style = data.range(0, 5);
    int order[TREESCAN_MAX_DIMS] = {0, 1, 2, 3};
    if (style >= 2)
      for (int i = view_.ndim - 1; i > 0; --i) std::swap(order[i], order[data.range(0, i)]);
    int64_t step = 1;
    for (int i = view_.ndim; i-- > 0;) {
      const int d = order[i];
      int64_t &stride = view_.strides[d];
      if (style >= 3) step += data.range(0, 3);
      stride = style == 4 && data.flag() ? -step : step;
      const int64_t size = view_.sizes[d];
      const bool huge = size > most_elements;
      if (role_ == Role::input && (huge || (style == 5 && data.flag()))) stride = 0;
      if (stride != 0 && size > 0 && !huge) step *= size;
    }
  }

  void spoil(Data &data, bool &no_memory) {
    switch (data.range(0, 7)) {
      case 0: missing_ = true; break;
      case 1: no_memory = true; break;
      case 2: view_.dtype = data.any_int32(); break;
      case 3: view_.device = data.any_int32(); break;
      case 4: view_.ndim = data.any_int32(); break;
      case 5: view_.sizes[data.range(0, 3)] = data.flag() ? data.range(0, 9) : data.hostile(); break;
      case 6: view_.strides[data.range(0, 3)] = data.flag() ? data.range(-9, 9) : data.hostile(); break;
      default: view_.device_index = data.any_int32();
    }
  }

  // Memory of exactly what the view reaches, where the library may follow it.
  void give_memory(bool no_memory) {
    view_.data = reinterpret_cast<void *>(uintptr_t{64});
    const bool known = view_.dtype >= 1 && view_.dtype <= 6 && view_.device == TREESCAN_CPU && view_.ndim >= 0 &&
                       view_.ndim <= TREESCAN_MAX_DIMS && std::all_of(view_.sizes, view_.sizes + view_.ndim, [](int64_t s) { return s >= 0; });
    if (no_memory) view_.data = nullptr;
    if (!known || no_memory || std::count(view_.sizes, view_.sizes + view_.ndim, 0)) {
      real_ = known && !no_memory;
      return;
    }
    __int128 below = 0, above = 0, count = 1;
    constexpr __int128 most_reach = __int128{1} << 56;
    for (int i = 0; i < view_.ndim; ++i) {
      const __int128 reach = __int128{view_.sizes[i] - 1} * view_.strides[i];
      (reach < 0 ? below : above) += reach;
      count = std::min<__int128>(count * view_.sizes[i], most_elements + 1);
      if (reach > most_reach || reach < -most_reach) return;  // to be refused
    }
    if (above - below >= most_elements) {
      view_.data = nullptr;
      return;
    }
    const int64_t bytes = dtype_size(view_.dtype), span = static_cast<int64_t>(above - below) + 1;
    memory_.assign(static_cast<size_t>(span * bytes), 0xa5);
    memory_.shrink_to_fit();
    view_.data = memory_.data() - static_cast<int64_t>(below) * bytes;
    real_ = count <= most_elements;  // a view can be expanded further than anybody wants to read here
    if (!real_) return;
    const int64_t *const s = view_.sizes;
    const auto size = [&](int d) { return d < view_.ndim ? s[d] : 1; };
    for (int64_t a = 0; a < size(0); ++a)
      for (int64_t b = 0; b < size(1); ++b)
        for (int64_t c = 0; c < size(2); ++c)
          for (int64_t d = 0; d < size(3); ++d) {
            const int64_t at[] = {a, b, c, d};
            int64_t offset = -static_cast<int64_t>(below);
            for (int i = 0; i < view_.ndim; ++i) offset += at[i] * view_.strides[i];
            elements_.push_back(offset * bytes);
          }
  }

  void fill(Data &data, int64_t indices) {
    const size_t bytes = static_cast<size_t>(dtype_size(view_.dtype));
    if (role_ == Role::output) {
      for (const int64_t e : elements_) std::memset(&memory_[static_cast<size_t>(e)], 0xff, bytes);
      return;
    }
    // Over the whole memory, since elements may be too many to list.
    const std::vector<uint8_t> given = data.bytes(std::min<size_t>(memory_.size() / bytes, 64));
    const bool wild = data.rarely();
    for (size_t i = 0; i < memory_.size() / bytes; ++i) {
      const uint8_t byte = given.empty() ? 0 : given[i % given.size()];
      char *const to = reinterpret_cast<char *>(&memory_[i * bytes]);
      const auto put = [&](auto value) { std::memcpy(to, &value, sizeof value); };
      int64_t index = indices > 0 ? byte % indices : static_cast<int64_t>(byte % 3) - 1;
      if (wild && byte > 240) index = byte % 2 ? INT64_MIN + byte : int64_t{1} << (byte % 16 + 28);
      if (wild && byte > 220 && byte <= 240) index = byte % 2 ? -1 : indices;
      constexpr float values[] = {0, 1, -1, 0.5f, -0.5f, 2, 0.25f, -0.25f};
      constexpr float limits[] = {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                                  std::numeric_limits<float>::quiet_NaN(), -0.0f, 1e-42f, 3e38f, -3e38f, 100};
      const float number = wild && byte >= 192 ? limits[byte % 8] : values[byte % 8];
      switch (view_.dtype) {
        case TREESCAN_FLOAT32: put(number); break;
        case TREESCAN_FLOAT64: put(static_cast<double>(number)); break;
        case TREESCAN_INT32: put(static_cast<int32_t>(index)); break;
        case TREESCAN_INT64: put(index); break;
        case TREESCAN_BFLOAT16: {
          uint32_t word;
          std::memcpy(&word, &number, sizeof word);
          put(static_cast<uint16_t>(word >> 16));
          break;
        }
        case TREESCAN_FLOAT16: {  // numbers that float16 has in full, by their bits
          constexpr uint16_t halves[] = {0, 0x3c00, 0xbc00, 0x3800, 0xb800, 0x4000, 0x3400, 0xb400};
          constexpr uint16_t ends[] = {0x7c00, 0xfc00, 0x7e00, 0x8000, 1, 0x7bff, 0xfbff, 0x5640};
          put(wild && byte >= 192 ? ends[byte % 8] : halves[byte % 8]);
          break;
        }
        default: break;
      }
    }
  }

  Role role_;
  int32_t dtype_;
  treescan_tensor view_{};
  bool missing_ = false, real_ = false;
  std::vector<uint8_t> memory_, before_;
  std::vector<int64_t> elements_;  // offsets in bytes
};

// Sizes that a target can walk through itself.
inline bool are_small(std::initializer_list<int64_t> sizes) {
  return std::all_of(sizes.begin(), sizes.end(), [](int64_t size) { return size >= 0 && size <= 5000; });
}

// A failure has words; nothing else is said of it.
inline void check_words(treescan_status status) {
  REQUIRE(status >= TREESCAN_OK && status <= TREESCAN_OUT_OF_MEMORY);
  REQUIRE(status == TREESCAN_OK || std::strlen(treescan_last_error()) > 10);
}

// Runs call(workspace, stream) as a caller may: a query, then with memory of the library's own, then in memory of exactly the
// size that the query told; and in ways that must be refused. What shapes and options decide, the query finds out, and
// then nothing is written. Returns how it ended.
template <class Call>
treescan_status run(Data &data, Call &&call, std::initializer_list<Tensor *> outputs) {
  const auto all = [&](bool (Tensor::*holds)() const) {
    return std::all_of(outputs.begin(), outputs.end(), [&](const Tensor *output) { return (output->*holds)(); });
  };
  treescan_workspace query{nullptr, -1};
  const treescan_status asked = call(&query, nullptr);
  check_words(asked);
  REQUIRE(query.data == nullptr && all(&Tensor::untouched));
  if (asked != TREESCAN_OK) {
    const std::string words = treescan_last_error();
    REQUIRE(call(nullptr, nullptr) == asked && words == treescan_last_error() && all(&Tensor::untouched));
    return asked;
  }
  if (only_validates) return asked;
  REQUIRE(query.size > 0);
  int somewhere = 0;
  REQUIRE(call(nullptr, &somewhere) == TREESCAN_INVALID_ARGUMENT && all(&Tensor::untouched));

  const treescan_status status = call(nullptr, nullptr);
  check_words(status);
  const std::string words = status == TREESCAN_OK ? "" : treescan_last_error();
  REQUIRE(all(&Tensor::intact));

  constexpr int64_t most = 1 << 20;
  if (query.size > most) return status;
  std::vector<std::vector<uint8_t>> first;
  for (Tensor *const output : outputs) {
    first.push_back(output->memory());
    output->reset();
  }
  const auto size = static_cast<size_t>(query.size);
  char *const memory = static_cast<char *>(std::aligned_alloc(64, (size + 127) / 64 * 64));
  // Its end is the end of what was asked for, rounded up to the alignment, which AddressSanitizer watches.
  treescan_workspace workspace{memory, query.size};
  std::memset(memory, 0xff, size);
  if (data.flag()) {
    treescan_workspace bad = workspace;
    if (data.flag()) bad.data = memory + 1 + data.range(0, 62);
    else bad.size = query.size - 1 - (data.flag() ? 0 : data.range(0, INT64_MAX / 2));
    REQUIRE(call(&bad, nullptr) == TREESCAN_INVALID_ARGUMENT && all(&Tensor::untouched));
    REQUIRE(std::string(treescan_last_error()).find("workspace: ") == 0);
  }
  const treescan_status again = call(&workspace, nullptr);
  REQUIRE(all(&Tensor::intact));
  std::free(memory);
  if (status == TREESCAN_OUT_OF_MEMORY || again == TREESCAN_OUT_OF_MEMORY) return again;
  REQUIRE(again == status);
  if (status == TREESCAN_OK) {
    size_t i = 0;
    for (const Tensor *const output : outputs) REQUIRE(output->memory() == first[i++]);
  } else {
    REQUIRE(words == treescan_last_error());
  }
  return status;
}

// Work is cut for some number of threads, and done on one, so that a run can be repeated.
inline void choose_threads(Data &data) {
  const auto on_caller = [](void *, int64_t count, void (*body)(void *, int64_t), void *task) {
    for (int64_t i = 0; i < count; ++i) body(task, i);
  };
  treescan_set_parallel_for(on_caller, nullptr);
  REQUIRE(treescan_set_num_threads(static_cast<int32_t>(data.range(1, 3))) == TREESCAN_OK);
}

}  // namespace fuzzing
