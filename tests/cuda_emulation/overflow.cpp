// A child slot out of bounds, for AddressSanitizer to find: its report ends the program.
#include <cstring>
#include <vector>

#include "emulator.h"
#include "test_kernels.h"

int main(int, char **arguments) {
  const bool in_shared = std::strcmp(arguments[1], "shared") == 0;
  treescan::emulation::run({}, [in_shared] {
    std::vector<int> parent(test_kernels::threads, test_kernels::threads - 1);
    void *device_parent, *slots, *degree;
    const size_t bytes = parent.size() * sizeof(int);
    cudaMalloc(&device_parent, bytes);
    cudaMalloc(&slots, 4 * bytes);
    cudaMalloc(&degree, bytes);
    cudaMemcpy(device_parent, parent.data(), bytes, cudaMemcpyHostToDevice);
    cudaMemsetAsync(degree, 0, bytes, nullptr);
    (void)test_kernels::child_slots(in_shared, 4, static_cast<int *>(device_parent), static_cast<int *>(slots),
                                    static_cast<int *>(degree));
  });
}
