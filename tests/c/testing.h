// What the tests of the C interface share: checks, arrays inside guarded memory, and calls in every setting.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <limits>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "treescan/treescan.hpp"

namespace testing {

struct Test {
  const char *name;
  void (*body)();
};

inline std::vector<Test> &tests() {
  static std::vector<Test> all;
  return all;
}

inline int failures = 0;

struct Registration {
  Registration(const char *name, void (*body)()) { tests().push_back({name, body}); }
};

#define TEST(name)                                              \
  static void name();                                           \
  static const testing::Registration name##_entry(#name, name); \
  static void name()

// What the calls of in_every_setting gave, as one number: programs and libraries of different compilers agree on it.
inline uint64_t results = 14695981039346656037u;

inline void remember(const std::string &bytes) {
  for (const char byte : bytes) results = (results ^ static_cast<unsigned char>(byte)) * 1099511628211u;
}

// The whole of a test program that includes this header once.
#define TEST_MAIN                                                                                                     \
  int main() {                                                                                                        \
    for (const testing::Test &test : testing::tests()) {                                                              \
      const int before = testing::failures;                                                                           \
      test.body();                                                                                                    \
      if (testing::failures != before) std::cerr << "FAILED " << test.name << std::endl;                              \
    }                                                                                                                 \
    std::cout << testing::tests().size() << " tests, " << testing::failures << " failed checks, results " << std::hex \
              << testing::results << std::endl;                                                                       \
    return testing::failures != 0;                                                                                    \
  }

template <class... Parts>
void report(const char *file, int line, const Parts &...parts) {
  if (++failures > 50) return;  // the first ones tell enough
  std::cerr << file << ":" << line << ": ";
  (std::cerr << ... << parts) << std::endl;
  if (std::getenv("TREESCAN_TESTS_STOP_EARLY")) std::_Exit(1);  // for whoever only wants to know whether they pass
}

#define CHECK(condition, ...) \
  ((condition) ? (void)0 : testing::report(__FILE__, __LINE__, "not true: " #condition "  ", ##__VA_ARGS__))

template <class A, class B>
bool check_equal(const char *file, int line, const char *text, const A &a, const B &b) {
  if (a == b) return true;
  report(file, line, text, ": ", a, " and ", b);
  return false;
}
#define EQUAL(a, b) testing::check_equal(__FILE__, __LINE__, #a " == " #b, a, b)

#define SUCCEEDS(call)                                                                                             \
  do {                                                                                                             \
    const int32_t status_ = call;                                                                                  \
    if (status_ != TREESCAN_OK)                                                                                    \
      testing::report(__FILE__, __LINE__, #call ": ", treescan_status_name(status_), ": ", treescan_last_error()); \
  } while (0)

// A call must fail with this status and a message that holds this text.
inline void check_failure(const char *file, int line, const std::string &what, int32_t status, int32_t expected,
                          const std::string &text) {
  const std::string message = treescan_last_error();
  if (status != expected)
    report(file, line, what, ": expected ", treescan_status_name(expected), ", got ", treescan_status_name(status),
           status == TREESCAN_OK ? "" : ": " + message);
  else if (message.find(text) == std::string::npos)
    report(file, line, what, ": expected \"", text, "\" in the message, got: ", message);
}
#define FAILS(call, status, text) testing::check_failure(__FILE__, __LINE__, #call, call, status, text)

// ---- Numbers of every type ----

inline double value_of(float x) { return static_cast<double>(x); }
inline double value_of(double x) { return x; }
inline double value_of(int32_t x) { return x; }
inline double value_of(int64_t x) { return static_cast<double>(x); }

// Reads a float format of 1 + exponent + fraction bits by its definition.
inline double decode(uint16_t bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const int exponent = bits >> fraction_bits & top, fraction = bits & ((1 << fraction_bits) - 1);
  const double sign = bits >> 15 ? -1 : 1;
  if (exponent == top)
    return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
}
inline double value_of(treescan::float16 x) { return decode(x.bits, 5, 10); }
inline double value_of(treescan::bfloat16 x) { return decode(x.bits, 8, 7); }

// The nearest number of such a format, ties to even.
inline uint16_t encode(double x, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const int sign = std::signbit(x) ? 0x8000 : 0;
  if (std::isnan(x)) return static_cast<uint16_t>(top << fraction_bits | 1 << (fraction_bits - 1));
  x = std::fabs(x);
  if (std::isinf(x)) return static_cast<uint16_t>(sign | top << fraction_bits);
  int exponent = x == 0 ? 1 - bias : std::max(1 - bias, std::ilogb(x));
  // A carry out of the fraction raises the exponent field by itself, up to infinity.
  const auto fraction = static_cast<int64_t>(std::nearbyint(std::ldexp(x, fraction_bits - exponent)));
  const int64_t hidden = int64_t{1} << fraction_bits;
  if (fraction < hidden) return static_cast<uint16_t>(sign | fraction);
  const int64_t bits = (int64_t{exponent} + bias) * hidden + fraction - hidden;
  return static_cast<uint16_t>(sign | std::min<int64_t>(bits, int64_t{top} << fraction_bits));
}

template <class T>
T number(double x) {
  if constexpr (std::is_same_v<T, treescan::float16>) {
    return {encode(x, 5, 10)};
  } else if constexpr (std::is_same_v<T, treescan::bfloat16>) {
    return {encode(x, 8, 7)};
  } else {
    return static_cast<T>(x);
  }
}

// How far a result of this type may lie from the exact one, relative to the size of what was added up.
template <class T>
constexpr double tolerance = std::is_same_v<T, double>              ? 1e-12
                             : std::is_same_v<T, float>             ? 2e-5
                             : std::is_same_v<T, treescan::float16> ? 2e-3
                                                                    : 1.6e-2;

// ---- Arrays ----

using Shape = std::vector<int64_t>;

inline Shape dense_strides(const Shape &sizes) {
  Shape strides(sizes.size());
  int64_t step = 1;
  for (size_t i = sizes.size(); i-- > 0; step *= std::max<int64_t>(1, sizes[i])) strides[i] = step;
  return strides;
}

// A strided array in memory of exactly the size it spans, so that AddressSanitizer sees a step to either side of it.
// Elements start as garbage (NaN, or -1), and what lies between them as a pattern that a call must leave alone.
template <class T>
class Array {
 public:
  explicit Array(Shape sizes, Shape strides = {})
      : sizes_(std::move(sizes)), strides_(strides.empty() ? dense_strides(sizes_) : std::move(strides)) {
    int64_t span = 1;
    count_ = 1;
    for (size_t i = 0; i < sizes_.size(); ++i) {
      count_ *= sizes_[i];
      const int64_t reach = (sizes_[i] - 1) * strides_[i];
      span += std::abs(reach);
      if (reach < 0) first_ -= reach;
    }
    length_ = count_ == 0 ? 0 : static_cast<size_t>(span);
    // Memory with no bytes at all is legal too; calls get a pointer to its end.
    memory_.reset(new T[length_]);
    std::memset(static_cast<void *>(memory_.get()), gap, length_ * sizeof(T));
    if (count_ == 0) first_ = 0;
    each([&](T &element) { std::memset(static_cast<void *>(&element), garbage, sizeof(T)); });
  }

  const Shape &sizes() const { return sizes_; }
  int64_t count() const { return count_; }

  // Element number i, the last index fastest.
  T &operator[](int64_t i) const {
    int64_t offset = first_;
    for (size_t d = sizes_.size(); d-- > 0; i /= sizes_[d]) offset += i % sizes_[d] * strides_[d];
    return memory_[static_cast<size_t>(offset)];
  }

  treescan::tensor_view view() const { return {memory_.get() + first_, sizes_, strides_}; }

  Array &fill(const std::function<double(int64_t)> &value) {
    for (int64_t i = 0; i < count_; ++i) (*this)[i] = number<T>(value(i));
    return *this;
  }
  Array &random(std::mt19937 &generator, double low, double high) {
    std::uniform_real_distribution<double> draw(low, high);
    return fill([&](int64_t) { return draw(generator); });
  }
  Array &wipe() {
    each([&](T &element) { std::memset(static_cast<void *>(&element), garbage, sizeof(T)); });
    return *this;
  }

  std::vector<double> values() const {
    std::vector<double> result;
    each([&](const T &element) { result.push_back(value_of(element)); });
    return result;
  }
  // The elements alone, for comparisons to the last bit.
  std::string bytes() const {
    std::string result;
    each([&](const T &element) { result.append(reinterpret_cast<const char *>(&element), sizeof(T)); });
    return result;
  }
  // Is what lies between the elements as it was?
  bool intact() const {
    std::vector<char> used(length_);
    each([&](const T &element) { used[static_cast<size_t>(&element - memory_.get())] = 1; });
    const auto *const raw = reinterpret_cast<const unsigned char *>(memory_.get());
    for (size_t i = 0; i < length_ * sizeof(T); ++i)
      if (!used[i / sizeof(T)] && raw[i] != gap) return false;
    return true;
  }
  // Has no element been written?
  bool untouched() const {
    bool result = intact();
    each([&](const T &element) {
      for (size_t i = 0; i < sizeof(T); ++i)
        result = result && reinterpret_cast<const unsigned char *>(&element)[i] == garbage;
    });
    return result;
  }

 private:
  static constexpr unsigned char garbage = 0xff, gap = 0xa5;

  template <class Visit>
  void each(Visit &&visit) const {
    for (int64_t i = 0; i < count_; ++i) visit((*this)[i]);
  }

  Shape sizes_, strides_;
  int64_t count_ = 0, first_ = 0;
  size_t length_ = 0;
  std::unique_ptr<T[]> memory_;
};

template <class T>
bool close(const std::vector<double> &got, const std::vector<double> &expected, double scale = 1) {
  if (got.size() != expected.size()) return false;
  for (size_t i = 0; i < got.size(); ++i)
    if (!(std::fabs(got[i] - expected[i]) <= tolerance<T> * (std::fabs(expected[i]) + scale))) {
      std::cerr << "element " << i << ": expected " << expected[i] << ", got " << got[i] << std::endl;
      return false;
    }
  return true;
}

// ---- Settings ----

// As long as it lives, this thread takes numbers that are too small to be normal for 0, where its processor can.
class FlushedDenormals {
 public:
#if defined(__SSE__)
  FlushedDenormals() : outer_(_mm_getcsr()) { _mm_setcsr(outer_ | 0x8040u); }
  ~FlushedDenormals() { _mm_setcsr(outer_); }
#elif defined(__aarch64__) && defined(__GNUC__)
  FlushedDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(outer_));
    __asm__ volatile("msr fpcr, %0" : : "r"(outer_ | uint64_t{1} << 24));
  }
  ~FlushedDenormals() { __asm__ volatile("msr fpcr, %0" : : "r"(outer_)); }
#else
  FlushedDenormals() : outer_(0) {}
#endif
  FlushedDenormals(const FlushedDenormals &) = delete;
  FlushedDenormals &operator=(const FlushedDenormals &) = delete;

 private:
#if defined(__aarch64__)
  uint64_t outer_;
#else
  uint32_t outer_;
#endif
};

// Whether the library was built with the CUDA backend; that doesn't mean that there is a device.
inline bool has_cuda() { return std::string(treescan_build_info()).find("cuda") != std::string::npos; }

inline std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const char *name : {"baseline", "avx2", "avx512"})
    if (treescan_set_instruction_set(name) == TREESCAN_OK) names.push_back(name);
  treescan_set_instruction_set("auto");
  return names;
}

// Runs a call with each way of giving it scratch memory, each number of threads and each instruction set, and checks
// that the outputs come out the same to the last bit and that nothing beside them was written.
template <class Call, class... Outputs>
void in_every_setting(Call &&call, Outputs &...outputs) {
  std::string first;
  const auto once = [&](treescan_workspace *workspace, const std::string &setting) {
    (outputs.wipe(), ...);
    const int32_t status = call(workspace);
    const std::string bytes = (outputs.bytes() + ...);
    if (status != TREESCAN_OK) report(__FILE__, __LINE__, setting, ": ", treescan_last_error());
    if (!(outputs.intact() && ...)) report(__FILE__, __LINE__, setting, ": wrote beside its outputs");
    if (first.empty()) remember(first = bytes);
    if (bytes != first) report(__FILE__, __LINE__, setting, ": another result");
  };
  once(nullptr, "first call");
  for (const int32_t threads : {1, 2, 7}) {
    treescan_set_num_threads(threads);
    once(nullptr, std::to_string(threads) + " threads");
    // The size query writes nothing; memory of exactly that size, full of garbage, is enough.
    (outputs.wipe(), ...);
    treescan_workspace workspace{nullptr, 0};
    if (call(&workspace) != TREESCAN_OK) report(__FILE__, __LINE__, "size query: ", treescan_last_error());
    if (!(outputs.untouched() && ...)) report(__FILE__, __LINE__, "size query: wrote to an output");
    if (workspace.size < 0) report(__FILE__, __LINE__, "size query: got ", workspace.size);
    constexpr size_t alignment = 64, margin = 64;
    const auto size = static_cast<size_t>(std::max<int64_t>(0, workspace.size));
    std::vector<unsigned char> memory(size + alignment + 2 * margin, 0xa5);
    const size_t shift = alignment - reinterpret_cast<uintptr_t>(memory.data()) % alignment;
    unsigned char *const block = memory.data() + shift + margin;
    std::memset(block, 0xff, size);
    workspace.data = block;
    once(&workspace, "exact workspace, " + std::to_string(threads) + " threads");
    const auto canary = [](unsigned char byte) { return byte == 0xa5; };
    if (!std::all_of(memory.data(), block, canary) || !std::all_of(block + size, memory.data() + memory.size(), canary))
      report(__FILE__, __LINE__, "wrote beside its workspace");
  }
  for (const std::string &set : instruction_sets()) {
    treescan_set_instruction_set(set.c_str());
    once(nullptr, set);
  }
  treescan_set_instruction_set("auto");
  treescan_set_num_threads(2);
}

}  // namespace testing

using testing::Array;
using testing::Shape;
