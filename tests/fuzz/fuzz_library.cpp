// The calls about the library itself: options by number and by name.
#include "fuzzing.h"

using namespace fuzzing;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  Data data(bytes, size);
  const int32_t number = data.any_int32();
  const treescan_status threads = treescan_set_num_threads(number);
  check_words(threads);
  REQUIRE((threads == TREESCAN_OK) == (number >= 1 && number <= 1024));
  REQUIRE(threads != TREESCAN_OK || treescan_get_num_threads() == number);

  constexpr const char *names[] = {"auto", "baseline", "avx2", "avx512", "block", "levels", ""};
  const std::string text = data.flag() ? data.text().c_str() : data.pick(names);  // up to its first zero, as the library reads
  const char *const name = data.rarely() ? nullptr : text.c_str();
  const std::string before = treescan_get_instruction_set();
  const treescan_status set = treescan_set_instruction_set(name);
  check_words(set);
  const std::string after = treescan_get_instruction_set();
  REQUIRE(set == TREESCAN_OK ? text == "auto" || after == text : after == before);

  const int32_t device = data.any_int32();
  const treescan_status waited = treescan_synchronize(device, data.any_int32(), nullptr);
  check_words(waited);
  REQUIRE((waited == TREESCAN_OK) == (device == TREESCAN_CPU));
  for (const treescan_status status : {treescan_set_cuda_trees(name), treescan_set_cuda_scans(name)}) {
    check_words(status);
    REQUIRE(status == (name ? TREESCAN_UNSUPPORTED_DEVICE : TREESCAN_INVALID_ARGUMENT));
  }
  // Until 1.0, a header of this minor version that isn't newer fits.
  for (const int32_t header : {number, TREESCAN_VERSION, TREESCAN_VERSION + 1, TREESCAN_VERSION - 100}) {
    const treescan_status fits = treescan_check_version(header);
    REQUIRE((fits == TREESCAN_OK) == (header <= TREESCAN_VERSION && header / 100 == TREESCAN_VERSION / 100));
    REQUIRE(fits == TREESCAN_OK || (fits == TREESCAN_INCOMPATIBLE && std::strlen(treescan_last_error()) > 10));
  }
  for (const int32_t status : {number, static_cast<int32_t>(waited), static_cast<int32_t>(TREESCAN_INCOMPATIBLE)})
    REQUIRE(std::strlen(treescan_status_name(status)) > 0);
  REQUIRE(std::strncmp(treescan_build_info(), "treescan ", 9) == 0 && treescan_version() == TREESCAN_VERSION);
  return 0;
}
