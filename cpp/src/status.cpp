#include "status.h"

#include <cstdio>

namespace treescan {

namespace {
// A plain array: setting the message must not itself run out of memory.
thread_local char last_error[1024] = "";
}  // namespace

void set_last_error(const char *message) noexcept { std::snprintf(last_error, sizeof last_error, "%s", message); }

}  // namespace treescan

extern "C" {

const char *treescan_last_error(void) { return treescan::last_error; }

const char *treescan_status_name(int32_t status) {
  switch (status) {
    case TREESCAN_OK: return "TREESCAN_OK";
    case TREESCAN_INVALID_ARGUMENT: return "TREESCAN_INVALID_ARGUMENT";
    case TREESCAN_UNSUPPORTED_DTYPE: return "TREESCAN_UNSUPPORTED_DTYPE";
    case TREESCAN_UNSUPPORTED_DEVICE: return "TREESCAN_UNSUPPORTED_DEVICE";
    case TREESCAN_TOO_LARGE: return "TREESCAN_TOO_LARGE";
    case TREESCAN_DISCONNECTED: return "TREESCAN_DISCONNECTED";
    case TREESCAN_NOT_A_TREE: return "TREESCAN_NOT_A_TREE";
    case TREESCAN_OUT_OF_RANGE: return "TREESCAN_OUT_OF_RANGE";
    case TREESCAN_OUT_OF_MEMORY: return "TREESCAN_OUT_OF_MEMORY";
    case TREESCAN_INTERNAL: return "TREESCAN_INTERNAL";
    case TREESCAN_INCOMPATIBLE: return "TREESCAN_INCOMPATIBLE";
    default: return "unknown status";
  }
}

}  // extern "C"
