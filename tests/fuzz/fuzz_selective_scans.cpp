// Selective scans and their adjoint, all dtypes, optional tensors and groups.
#include "graphs.h"

using namespace fuzzing;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  Data data(bytes, size);
  choose_threads(data);
  const int64_t batch = data.size(1, 3), groups = data.size(1, 3), per_group = data.size(1, data.rarely() ? 80 : 9);
  const bool fits = groups >= 0 && per_group >= 0 && (groups == 0 || per_group <= INT64_MAX / groups);
  const int64_t channels = fits ? groups * per_group : 4;
  const int64_t vertices = data.size(1, 8), states = data.size(1, data.rarely() ? 40 : 4);
  const int32_t dtype = data.pick(floating_dtypes), direction = data.choice(3);
  const int32_t computed = dtype == TREESCAN_FLOAT64 ? TREESCAN_FLOAT64 : TREESCAN_FLOAT32;
  const bool backward = data.flag();
  const int64_t trees = data.flag() ? batch : 1;
  Tensor parent(data, Role::input, TREESCAN_INT32, {trees, vertices}, vertices);
  Tensor order(data, Role::input, TREESCAN_INT32, {trees, vertices}, vertices);
  if (!data.rarely()) plant(data, parent, &order, trees, vertices, data.flag());

  const Sizes signal = {batch, channels, vertices}, fixed = {channels, states}, factor = {batch, groups, states, vertices};
  const bool fixed_B = data.flag(), fixed_C = data.flag();
  const struct {
    int32_t dtype;
    Sizes sizes;
    bool optional;
  } kinds[8] = {{dtype, signal, false},
                {dtype, signal, false},
                {computed, fixed, false},
                {fixed_B ? computed : dtype, fixed_B ? fixed : factor, false},
                {fixed_C ? computed : dtype, fixed_C ? fixed : factor, false},
                {computed, {channels}, true},
                {dtype, signal, true},
                {computed, {channels}, true}};
  std::vector<std::unique_ptr<Tensor>> inputs, grads;
  const treescan_tensor *given[8], *wanted[8];
  for (int i = 0; i < 8; ++i) {
    const bool present = !kinds[i].optional || data.flag();
    inputs.push_back(std::make_unique<Tensor>(data, Role::input, kinds[i].dtype, kinds[i].sizes));
    grads.push_back(std::make_unique<Tensor>(data, Role::output, kinds[i].dtype, kinds[i].sizes));
    given[i] = present ? *inputs.back() : nullptr;
    wanted[i] = present != data.rarely() ? *grads.back() : nullptr;
  }
  const treescan_selective_inputs arguments{given[0], given[1], given[2], given[3], given[4],
                                            given[5], given[6], given[7], data.flag()};
  const treescan_selective_gradients gradients{wanted[0], wanted[1], wanted[2], wanted[3],
                                               wanted[4], wanted[5], wanted[6], wanted[7]};
  Tensor y(data, Role::output, dtype, signal), grad_y(data, Role::input, dtype, signal);
  Tensor last(data, Role::output, computed, {batch, channels, states});
  Tensor grad_last(data, Role::input, computed, {batch, channels, states});
  const bool with_state = data.flag(), no_inputs = data.rarely(), no_gradients = data.rarely();
  const treescan_selective_inputs *const in = no_inputs ? nullptr : &arguments;
  const treescan_status status = run(
      data,
      [&](treescan_workspace *workspace, void *stream) {
        if (backward)
          return treescan_selective_scan_backward(direction, parent, order, in, grad_y, with_state ? grad_last : nullptr,
                                                  no_gradients ? nullptr : &gradients, workspace, stream);
        return treescan_selective_scan(direction, parent, order, in, y, with_state ? last : nullptr, workspace, stream);
      },
      {&y, &last, grads[0].get(), grads[1].get(), grads[2].get(), grads[3].get(), grads[4].get(), grads[5].get(),
       grads[6].get(), grads[7].get()});
  REQUIRE(status != TREESCAN_DISCONNECTED && status != TREESCAN_OUT_OF_RANGE);
  return 0;
}
