// The CUDA runtime's calls, and the session that a test runs in. Work is done at once, in the order of the calls.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "session.h"

namespace treescan::emulation {

Session *current;

std::map<uintptr_t, std::unique_ptr<Allocation>> &pinned_memory() {
  static std::map<uintptr_t, std::unique_ptr<Allocation>> memory;
  return memory;
}

Session &session() {
  if (current) return *current;
  std::fprintf(stderr, "the emulated device is there inside treescan::emulation::run only\n");
  std::abort();
}

bool sees_accesses() { return accesses_seen; }

Report run(const Options &options, const std::function<void()> &host_code, const Device &device) {
  Session fresh;
  fresh.options = options;
  fresh.device = device;
  fresh.random = options.seed;
  const struct Scope {  // ends with an exception of the host code, too
    explicit Scope(Session *session) : before(current) { current = session; }
    ~Scope() { current = before; }
    Session *before;
  } scope(&fresh);
  for (const auto &entry : pinned_memory()) entry.second->renew();
  host_code();
  for (const auto &entry : fresh.memory) fresh.report.live_allocations += !entry.second->freed;
  return fresh.report;
}

const char *name(Fault fault) {
  static const char *const names[] = {
      "race",     "out of bounds",   "uninitialised read",   "misaligned access",       "divergence",
      "deadlock", "no grid barrier", "access from the host", "shared memory too large", "stream capture",
      "trap"};
  return names[static_cast<int>(fault)];
}

bool Report::has(Fault fault) const {
  return std::any_of(findings.begin(), findings.end(), [fault](const Finding &f) { return f.fault == fault; });
}

std::string Report::text() const {
  std::ostringstream out;
  for (const Finding &f : findings)
    out << name(f.fault) << " in " << (f.kernel.empty() ? "host code" : f.kernel) << ": " << f.text << "\n";
  return out.str();
}

// ---- What calls have in common ----

static cudaError_t returned(cudaError_t error) {
  Session &s = session();
  if (s.sticky_error != cudaSuccess) error = s.sticky_error;
  if (error != cudaSuccess) s.last_error = error;
  return error;
}

// What a capturing stream can't record.
static bool refused(const char *call) {
  const bool forbidden = session().capturing && session().capture_mode != cudaStreamCaptureModeRelaxed;
  if (forbidden) find(Fault::stream_capture, std::string(call) + " during a capture");
  return forbidden;
}

static Allocation *device_memory(const void *address, size_t bytes) {
  Allocation *memory = session().find(address);
  return memory && !memory->freed && memory->holds(address, bytes) ? memory : nullptr;
}

static cudaError_t allocate(void **address, size_t bytes) {
  Session &s = session();
  if (!bytes) return *address = nullptr, returned(cudaSuccess);
  std::unique_ptr<Allocation> memory;
  try {
    memory = std::make_unique<Allocation>(bytes, ++s.report.allocations, accesses_seen);
  } catch (const std::bad_alloc &) {
    return returned(cudaErrorMemoryAllocation);
  }
  *address = memory->begin;
  s.memory[reinterpret_cast<uintptr_t>(*address)] = std::move(memory);
  return returned(cudaSuccess);
}

static cudaError_t release(void *address) {
  if (!address) return returned(cudaSuccess);
  Allocation *memory = device_memory(address, 1);
  if (!memory || memory->begin != address) return returned(cudaErrorInvalidValue);
  memory->freed = true;
  std::memset(memory->begin, 0xdd, memory->bytes);
  return returned(cudaSuccess);
}

static cudaError_t copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  Session &s = session();
  if (s.sticky_error != cudaSuccess || !bytes) return returned(cudaSuccess);
  const Allocation *source = device_memory(from, bytes);
  Allocation *target = device_memory(to, bytes);
  const bool from_device = kind != cudaMemcpyHostToDevice, to_device = kind != cudaMemcpyDeviceToHost;
  if (from_device != (source != nullptr) || to_device != (target != nullptr)) return returned(cudaErrorInvalidValue);
  std::memcpy(to, from, bytes);
  if (!to_device) ++s.report.copies_to_host;
  if (to_device && target->shadow) {
    if (from_device)
      target->shadow->copy_written(target->offset(to), *source->shadow, source->offset(from), bytes);
    else
      target->shadow->mark_written(target->offset(to), bytes);
  }
  return returned(cudaSuccess);
}

static cudaError_t synchronise(const char *call) {
  if (refused(call)) return returned(cudaErrorStreamCaptureUnsupported);
  ++session().report.synchronisations;
  return returned(cudaSuccess);
}

cudaError_t set_dynamic_shared_limit(Kernel kernel, int bytes) {
  Session &s = session();
  if (bytes < 0 || static_cast<size_t>(bytes) > s.device.shared_opt_in) return returned(cudaErrorInvalidValue);
  s.dynamic_shared_limit[kernel] = static_cast<size_t>(bytes);
  return returned(cudaSuccess);
}

}  // namespace treescan::emulation

using namespace treescan::emulation;

cudaError_t cudaMalloc(void **address, size_t bytes) {
  return refused("cudaMalloc") ? returned(cudaErrorStreamCaptureUnsupported) : allocate(address, bytes);
}
cudaError_t cudaFree(void *address) {
  return refused("cudaFree") ? returned(cudaErrorStreamCaptureUnsupported) : release(address);
}
cudaError_t cudaMallocAsync(void **address, size_t bytes, cudaStream_t) { return allocate(address, bytes); }
cudaError_t cudaFreeAsync(void *address, cudaStream_t) { return release(address); }

cudaError_t cudaHostAlloc(void **address, size_t bytes, unsigned flags) {
  if (refused("cudaHostAlloc")) return returned(cudaErrorStreamCaptureUnsupported);
  if (!bytes || flags != cudaHostAllocMapped) return returned(cudaErrorInvalidValue);
  auto memory = std::make_unique<Allocation>(bytes, 0, accesses_seen);
  memory->pinned = true;
  memory->renew();
  *address = memory->begin;
  pinned_memory()[reinterpret_cast<uintptr_t>(*address)] = std::move(memory);
  return returned(cudaSuccess);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  const cudaError_t error = synchronise("cudaMemcpy");
  return error != cudaSuccess ? error : copy(to, from, bytes, kind);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  return copy(to, from, bytes, kind);
}
cudaError_t cudaMemsetAsync(void *address, int value, size_t bytes, cudaStream_t) {
  if (session().sticky_error != cudaSuccess || !bytes) return returned(cudaSuccess);
  Allocation *memory = device_memory(address, bytes);
  if (!memory) return returned(cudaErrorInvalidValue);
  std::memset(address, value, bytes);
  if (memory->shadow) memory->shadow->mark_written(memory->offset(address), bytes);
  return returned(cudaSuccess);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
  *stream = reinterpret_cast<cudaStream_t>(new char);
  return returned(cudaSuccess);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete reinterpret_cast<char *>(stream);
  return returned(cudaSuccess);
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return synchronise("cudaStreamSynchronize"); }
cudaError_t cudaDeviceSynchronize() { return synchronise("cudaDeviceSynchronize"); }

// A capture runs what it would record, and reports what it couldn't.
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream || session().capturing) return returned(cudaErrorStreamCaptureUnsupported);
  session().capturing = true;
  return returned(cudaSuccess);
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode) {
  std::swap(session().capture_mode, *mode);
  return returned(cudaSuccess);
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph) {
  session().capturing = false;
  *graph = nullptr;
  return returned(cudaSuccess);
}

cudaError_t cudaGetDeviceCount(int *count) { return *count = 1, returned(cudaSuccess); }
cudaError_t cudaGetDevice(int *device) { return *device = 0, returned(cudaSuccess); }
cudaError_t cudaSetDevice(int device) { return returned(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return returned(cudaErrorInvalidDevice);
  const Device &d = session().device;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = d.multiprocessors;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = d.threads_per_multiprocessor;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = d.compute_capability / 10;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = d.compute_capability % 10;
      break;
    case cudaDevAttrCooperativeLaunch:
      *value = 1;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(d.shared_opt_in);
      break;
    default:
      return returned(cudaErrorInvalidValue);
  }
  return returned(cudaSuccess);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *address) {
  const bool on_device = device_memory(address, 1) != nullptr;
  *attributes = {on_device ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered, on_device ? 0 : -1,
                 on_device ? const_cast<void *>(address) : nullptr, on_device ? nullptr : const_cast<void *>(address)};
  return returned(cudaSuccess);
}

cudaError_t cudaPeekAtLastError() {
  Session &s = session();
  return s.sticky_error != cudaSuccess ? s.sticky_error : s.last_error;
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  session().last_error = cudaSuccess;
  return error;
}

#define TREESCAN_ERRORS(X)                                                       \
  X(cudaSuccess, "no error")                                                     \
  X(cudaErrorInvalidValue, "invalid argument")                                   \
  X(cudaErrorMemoryAllocation, "out of memory")                                  \
  X(cudaErrorInvalidConfiguration, "invalid configuration argument")             \
  X(cudaErrorInvalidDevice, "invalid device ordinal")                            \
  X(cudaErrorIllegalAddress, "an illegal memory access was encountered")         \
  X(cudaErrorMisalignedAddress, "misaligned address")                            \
  X(cudaErrorLaunchFailure, "unspecified launch failure")                        \
  X(cudaErrorCooperativeLaunchTooLarge, "too many blocks in cooperative launch") \
  X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")
#define TREESCAN_NAME(error, text) \
  case error:                      \
    return #error;
#define TREESCAN_TEXT(error, text) \
  case error:                      \
    return text;
const char *cudaGetErrorName(cudaError_t error) {
  switch (error) { TREESCAN_ERRORS(TREESCAN_NAME) }
  return "unrecognised error";
}
const char *cudaGetErrorString(cudaError_t error) {
  switch (error) { TREESCAN_ERRORS(TREESCAN_TEXT) }
  return "unrecognised error";
}
