#include "validate.h"

#include <algorithm>

#include "backend.h"

namespace treescan {

const std::initializer_list<int32_t> floating_dtypes = {TREESCAN_FLOAT32, TREESCAN_FLOAT64, TREESCAN_FLOAT16,
                                                        TREESCAN_BFLOAT16};

const char *dtype_name(int32_t dtype) {
  switch (dtype) {
    case TREESCAN_FLOAT32: return "float32";
    case TREESCAN_FLOAT64: return "float64";
    case TREESCAN_FLOAT16: return "float16";
    case TREESCAN_BFLOAT16: return "bfloat16";
    case TREESCAN_INT32: return "int32";
    case TREESCAN_INT64: return "int64";
    default: return nullptr;
  }
}

int64_t dtype_size(int32_t dtype) {
  switch (dtype) {
    case TREESCAN_FLOAT64:
    case TREESCAN_INT64: return 8;
    case TREESCAN_FLOAT32:
    case TREESCAN_INT32: return 4;
    default: return 2;
  }
}

namespace {

std::string shape(const int64_t *sizes, size_t count) {
  std::string text = "(";
  for (size_t i = 0; i < count; ++i) {
    if (i) text += ", ";
    text += sizes[i] < 0 ? "any" : std::to_string(sizes[i]);
  }
  return text + ")";
}

std::string shape(const treescan_tensor &tensor) { return shape(tensor.sizes, static_cast<size_t>(tensor.ndim)); }

}  // namespace

void check_tensor(const treescan_tensor *tensor, const char *name) {
  if (!tensor) fail(TREESCAN_INVALID_ARGUMENT, name, ": expected a tensor, got NULL");
  if (!dtype_name(tensor->dtype))
    fail(TREESCAN_UNSUPPORTED_DTYPE, name, ": expected a treescan_dtype, got ", tensor->dtype);
  backend_of(tensor->device, name);
  if (tensor->ndim < 0 || tensor->ndim > TREESCAN_MAX_DIMS)
    fail(TREESCAN_INVALID_ARGUMENT, name, ": expected 0 to ", TREESCAN_MAX_DIMS, " dimensions, got ", tensor->ndim);
  // Every offset in bytes must fit 64 bits; sums stay in range because each term is kept below 2^59.
  bool empty = false;
  constexpr int64_t most = int64_t{1} << 56;
  for (int32_t i = 0; i < tensor->ndim; ++i) {
    if (tensor->sizes[i] < 0)
      fail(TREESCAN_INVALID_ARGUMENT, name, ": expected sizes >= 0, got ", shape(*tensor));
    empty = empty || tensor->sizes[i] == 0;
  }
  if (empty) return;
  for (int32_t i = 0; i < tensor->ndim; ++i) {
    const int64_t steps = tensor->sizes[i] - 1;
    const int64_t stride = tensor->strides[i];
    if (stride < -most || stride > most || (steps > 0 && stride != 0 && steps > most / (stride < 0 ? -stride : stride)))
      fail(TREESCAN_TOO_LARGE, name, ": size ", tensor->sizes[i], " with stride ", stride, " in dimension ", i,
           " overflows");
  }
  if (!tensor->data) fail(TREESCAN_INVALID_ARGUMENT, name, ": expected memory for shape ", shape(*tensor), ", got NULL");
}

void check_tensor(const treescan_tensor *tensor, const char *name, std::initializer_list<int32_t> dtypes,
                  std::initializer_list<int64_t> sizes) {
  check_tensor(tensor, name);
  if (std::find(dtypes.begin(), dtypes.end(), tensor->dtype) == dtypes.end()) {
    std::string names;
    for (const int32_t dtype : dtypes) names += (names.empty() ? "" : " or ") + std::string(dtype_name(dtype));
    fail(TREESCAN_UNSUPPORTED_DTYPE, name, ": expected ", names, ", got ", dtype_name(tensor->dtype));
  }
  bool equal = tensor->ndim == static_cast<int32_t>(sizes.size());
  const int64_t *const wanted = sizes.begin();
  for (int32_t i = 0; equal && i < tensor->ndim; ++i) equal = wanted[i] < 0 || wanted[i] == tensor->sizes[i];
  if (!equal)
    fail(TREESCAN_INVALID_ARGUMENT, name, ": expected shape ", shape(wanted, sizes.size()), ", got ", shape(*tensor));
}

void check_writable(const treescan_tensor *tensor, const char *name) {
  // Without elements its strides may be anything.
  if (std::any_of(tensor->sizes, tensor->sizes + tensor->ndim, [](int64_t size) { return size == 0; })) return;
  struct Dimension {
    int64_t size, stride;
  } dimensions[TREESCAN_MAX_DIMS];
  int32_t count = 0;
  for (int32_t i = 0; i < tensor->ndim; ++i) {
    if (tensor->sizes[i] > 1)
      dimensions[count++] = {tensor->sizes[i], tensor->strides[i] < 0 ? -tensor->strides[i] : tensor->strides[i]};
  }
  for (int32_t i = 1; i < count; ++i)
    for (int32_t j = i; j > 0 && dimensions[j].stride < dimensions[j - 1].stride; --j)
      std::swap(dimensions[j], dimensions[j - 1]);
  int64_t reach = 0;  // the largest offset within the dimensions seen so far
  for (int32_t i = 0; i < count; ++i) {
    if (dimensions[i].stride <= reach)
      fail(TREESCAN_INVALID_ARGUMENT, name, ": expected an output whose elements don't overlap, got stride ",
           dimensions[i].stride, " for a dimension of size ", dimensions[i].size);
    reach += (dimensions[i].size - 1) * dimensions[i].stride;
  }
}

void check_in_cpu_memory(const treescan_tensor *tensor, const char *name) {
  if (tensor->device != TREESCAN_CPU)
    fail(TREESCAN_UNSUPPORTED_DEVICE, name, ": expected CPU memory, got CUDA memory");
}

}  // namespace treescan
