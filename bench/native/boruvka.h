// Borůvka's algorithm as a textbook has it, a stand-in for the code that the original extensions run on the host.
#pragma once

#include <cstdint>

#if defined(_WIN32)
#  define TEXTBOOK_API extern "C" __declspec(dllexport)
#else
#  define TEXTBOOK_API extern "C" __attribute__((visibility("default")))
#endif

// The edges of the spanning tree that is minimal under (cost, edge index), in the order in which they were found.
//   edges   num_edges x 2 vertices
//   chosen  room for num_vertices - 1 edge indices
// Returns how many it found: fewer than num_vertices - 1 if the graph isn't connected.
TEXTBOOK_API int64_t textbook_boruvka(const int32_t *edges, const float *cost, int64_t num_edges, int64_t num_vertices,
                                      int32_t *chosen);
