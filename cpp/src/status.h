// Failures inside the library: an Error carries a status and a message up to the one guard around every C call.
#pragma once

#include <exception>
#include <sstream>
#include <string>

#include "treescan/treescan.h"

namespace treescan {

class Error : public std::exception {
 public:
  Error(treescan_status status, std::string message) : status_(status), message_(std::move(message)) {}
  treescan_status status() const { return status_; }
  const char *what() const noexcept override { return message_.c_str(); }

 private:
  treescan_status status_;
  std::string message_;
};

// fail(status, "root", ": expected ...", value): joins its arguments into the message.
template <class... Parts>
[[noreturn]] void fail(treescan_status status, const Parts &...parts) {
  std::ostringstream message;
  message.exceptions(std::ios::badbit);  // half a message would be all there is when memory runs out
  (message << ... << parts);
  throw Error(status, message.str());
}

void set_last_error(const char *message) noexcept;

// Turns whatever the body throws into a status and this thread's message. Nothing crosses the C boundary.
template <class Body>
treescan_status guard(Body &&body) noexcept {
  try {
    body();
    return TREESCAN_OK;
  } catch (const Error &error) {
    set_last_error(error.what());
    return error.status();
  } catch (const std::bad_alloc &) {
    set_last_error("out of memory");
    return TREESCAN_OUT_OF_MEMORY;
  } catch (const std::exception &error) {
    set_last_error(error.what());
    return TREESCAN_INTERNAL;
  } catch (...) {
    set_last_error("unknown failure");
    return TREESCAN_INTERNAL;
  }
}

}  // namespace treescan
