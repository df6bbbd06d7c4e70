// Context lengths that differ by item, where kernels can read them. The caller's are in CPU memory, and may be gone before
// the work is done: they travel as arguments of kernels, which a captured CUDA graph keeps.
#pragma once

#include "device.h"
#include "graph.h"
#include "workspace.h"

namespace treescan::cuda {

// Memory for the context lengths of a graph; all there is to pass on to graph_on_device.
int64_t *take_contexts(Carver &carver, const Graph &graph);

// The graph for kernels, its context lengths in that memory. Launches nothing where all items share one.
Graph graph_on_device(Graph graph, int64_t *contexts, cudaStream_t stream);

}  // namespace treescan::cuda
