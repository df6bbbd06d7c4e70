// Small kernels with one thing right or wrong about each. `correct` picks; the wrong ones are for the emulator to find.
#pragma once

#include <cstdint>

#include "device.h"

namespace test_kernels {

constexpr int threads = 64;

// The sum of 64 numbers per block, by halves in shared memory. Wrong: no barrier between the rounds.
cudaError_t block_sum(bool correct, const int *x, int *sums, unsigned blocks);
// The smallest number of all. Wrong: a plain minimum.
cudaError_t smallest(bool correct, const int *x, int *result, unsigned blocks);
// How many of the numbers 0 to 7 a block holds. Wrong: no barrier after the counts are set to 0.
cudaError_t histogram(bool correct, const int *x, int *counts);
// Sums from the root down a tree of one block, level by level. Wrong: no barrier after a level was read.
cudaError_t level_pass(bool correct, const int *parent, const int *x, int *y);
// Neighbours' sums in two phases over the whole grid. Wrong: a block's barrier between them.
cudaError_t grid_phases(bool correct, const int *x, int *scratch, int *y, unsigned blocks);
// The block that is done last adds up what the others left. Wrong: no fence before its flag is set, or after it was
// read.
cudaError_t last_block_sum(bool release, bool acquire, const int *x, int *partial, unsigned *done, int *sum,
                           unsigned blocks);

// All threads of a block write, and the block that is done last reads all of it. Wrong: each thread has its fence
// before the barrier, so the one that sets the flag passed its own before the others wrote.
cudaError_t last_block_copy(bool correct, const int *x, int *between, unsigned *done, int *y, unsigned blocks);
// All threads read a number, and one thread of the last warp then replaces it. Wrong: it waits for its own warp only.
cudaError_t replace_after_reading(bool correct, int *number, int *y);

// Each vertex writes itself into its parent's list of children and is then counted there; the parent's thread reads the
// list once it is complete. Wrong: it is counted first.
cudaError_t collect_children(bool correct, const int *parent, int *slots, int *degree, int *sums, const int *expected);
// The same children in a list of `room` slots for each parent, in shared memory or global memory.
cudaError_t child_slots(bool in_shared, int room, const int *parent, int *slots, int *degree);

// The warps of all blocks add to a sum, one at a time behind a lock. Wrong: no fence before the lock is given back.
cudaError_t locked_sum(bool correct, int *lock, int *sum, unsigned blocks);

// Lanes exchange numbers by shared memory. Wrong: a shuffle, which orders nothing, in place of __syncwarp.
cudaError_t warp_exchange(bool correct, const int *x, int *y);
// The halves of a warp meet by themselves, each with its own mask.
cudaError_t half_warps(const int *x, int *y);
// Inclusive sums of 128 numbers by shuffles, one barrier between the two levels.
cudaError_t block_scan(const int *x, int *y);
// Sums all shared numbers, of which the last was set only if `correct`.
cudaError_t shared_sum(bool correct, const int *x, int *y);
// A barrier that half of the threads doesn't reach, because they left, or are at another, or at a warp operation.
enum class Divergence { none, left, other_barrier, in_a_warp, warp_mask };
cudaError_t divergent_barrier(Divergence how, int *y);
cudaError_t grid_sync_in(bool cooperative, int *y, unsigned blocks);
// Block 1 waits until block 0 sets a flag; in a cooperative launch, or in an ordinary one with no right to wait.
cudaError_t wait_for_block(bool cooperative, int *flag, const int *x, int *y);

// y = 2 x for 16 bytes a thread, `offset` floats in.
cudaError_t scale_vectors(const float *x, float *y, int vectors, int offset);
// The same with one float a thread, `stride` floats apart.
cudaError_t scale_strided(const float *x, float *y, int count, int stride);
// Neighbouring threads write neighbouring bytes.
cudaError_t to_bytes(const int *x, uint8_t *y, uint16_t *half_bits);
// Dynamic shared memory of any size.
cudaError_t dynamic_reverse(const int *x, int *y, size_t shared_bytes);
cudaError_t allow_dynamic_shared(int bytes);
// 40 KiB of shared memory beside the dynamic one.
cudaError_t static_and_dynamic(int *y, size_t shared_bytes);
cudaError_t trap_unless(bool correct, int *y);
cudaError_t launch_nothing(dim3 grid, dim3 block, size_t shared_bytes, bool cooperative);
int first_element_read_by_host(const int *device_memory);

}  // namespace test_kernels
