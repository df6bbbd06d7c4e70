#include "graph.h"

#include <algorithm>

#include "validate.h"
#include "value_faults.h"

namespace treescan {

namespace {

int64_t check_side(int64_t size, const char *name) {
  if (size < 1) fail(TREESCAN_INVALID_ARGUMENT, name, ": expected at least 1, got ", size);
  if (size > INT32_MAX) fail(TREESCAN_TOO_LARGE, name, ": expected at most ", INT32_MAX, ", got ", size);
  return size;
}

void resolve_contexts(const treescan_tensor *lengths, Graph &graph) {
  if (!lengths) {
    graph.longest_context = graph.num_vertices;
    return;
  }
  check_tensor(lengths, "graph->context_length", {TREESCAN_INT64}, {-1});
  check_in_cpu_memory(lengths, "graph->context_length");
  graph.longest_context = 0;
  graph.context_lengths = static_cast<const int64_t *>(lengths->data);
  graph.context_stride = lengths->sizes[0] == 1 ? 0 : lengths->strides[0];
  graph.batch = lengths->sizes[0] == 1 ? -1 : lengths->sizes[0];
  // One that was expanded over the batch, however large that is, is one.
  const int64_t distinct = lengths->strides[0] == 0 ? std::min<int64_t>(1, lengths->sizes[0]) : lengths->sizes[0];
  for (int64_t item = 0; item < distinct; ++item) {
    const int64_t length = graph.context_lengths[item * lengths->strides[0]];
    if (length < 0 || length > graph.num_vertices)
      fail(TREESCAN_INVALID_ARGUMENT, "graph->context_length: expected 0 to the length ", graph.num_vertices, ", got ",
           length, " for item ", item);
    graph.longest_context = std::max(graph.longest_context, length);
  }
}

void resolve_edge_list(const treescan_tensor *edges, Graph &graph) {
  check_tensor(edges, "graph->edge_index");
  if (edges->ndim == 3) {
    check_tensor(edges, "graph->edge_index", {TREESCAN_INT32, TREESCAN_INT64}, {-1, -1, 2});
    graph.batch = edges->sizes[0];
    graph.edges = {edges->data, false, {edges->strides[0], edges->strides[1], edges->strides[2]}};
  } else {
    check_tensor(edges, "graph->edge_index", {TREESCAN_INT32, TREESCAN_INT64}, {-1, 2});
    graph.edges = {edges->data, false, {0, edges->strides[0], edges->strides[1]}};
  }
  graph.edges.wide = edges->dtype == TREESCAN_INT64;
  graph.num_edges = edges->sizes[edges->ndim - 2];
  // A list that was expanded over the batch is one list.
  graph.own_lists = edges->ndim == 3 && edges->strides[0] != 0 && edges->sizes[0] > 1;
}

}  // namespace

Graph resolve_graph(const treescan_graph *description) {
  if (!description) fail(TREESCAN_INVALID_ARGUMENT, "graph: expected a pointer, got NULL");
  Graph graph;
  graph.kind = description->kind;
  switch (description->kind) {
    case TREESCAN_GRID: {
      graph.height = check_side(description->height, "graph->height");
      graph.width = check_side(description->width, "graph->width");
      graph.connectivity = description->connectivity;
      if (graph.connectivity != 4 && graph.connectivity != 8)
        fail(TREESCAN_INVALID_ARGUMENT, "graph->connectivity: expected 4 or 8, got ", graph.connectivity);
      const int64_t h = graph.height, w = graph.width;
      graph.num_vertices = h * w;
      if (graph.num_vertices > INT32_MAX) break;  // reported below; the edges could overflow
      graph.num_edges = (h - 1) * w + h * (w - 1) + (graph.connectivity == 8 ? 2 * (h - 1) * (w - 1) : 0);
      break;
    }
    case TREESCAN_TOKENS:
      graph.num_vertices = check_side(description->length, "graph->length");
      graph.window = check_side(description->window, "graph->window");
      graph.window = std::min(graph.window, std::max<int64_t>(1, graph.num_vertices - 1));
      resolve_contexts(description->context_length, graph);
      graph.num_edges = token_edges_before(graph.num_vertices - 1, graph.num_vertices, graph.window,
                                           graph.num_vertices - graph.longest_context);
      break;
    case TREESCAN_CHAIN:
      graph.num_vertices = check_side(description->length, "graph->length");
      graph.num_edges = graph.num_vertices - 1;
      break;
    case TREESCAN_EDGES:
      graph.num_vertices = check_side(description->num_vertices, "graph->num_vertices");
      resolve_edge_list(description->edge_index, graph);
      break;
    default:
      fail(TREESCAN_INVALID_ARGUMENT, "graph->kind: expected a treescan_graph_kind from 1 to 4, got ", description->kind);
  }
  if (graph.num_vertices > INT32_MAX || graph.num_edges > INT32_MAX)
    fail(TREESCAN_TOO_LARGE, "graph: expected at most ", INT32_MAX, " vertices and edges, got ", graph.num_vertices,
         " and ", graph.num_edges);
  return graph;
}

namespace {

// Every vertex of a range of rows and columns linked to the one `distance` ahead, row by row.
Ends *list_links(int64_t width, int64_t rows, int64_t first_column, int64_t columns, int64_t distance, Ends *ends) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = first_column; c < first_column + columns; ++c) {
      const int64_t v = r * width + c;
      *ends++ = {static_cast<int32_t>(v), static_cast<int32_t>(v + distance)};
    }
  return ends;
}

void list_grid(const Graph &graph, Ends *ends) {
  const int64_t h = graph.height, w = graph.width;
  ends = list_links(w, h - 1, 0, w, w, ends);
  ends = list_links(w, h, 0, w - 1, 1, ends);
  if (graph.connectivity == 8) {
    ends = list_links(w, h - 1, 0, w - 1, w + 1, ends);
    list_links(w, h - 1, 1, w - 1, w - 1, ends);
  }
}

}  // namespace

Ends list_edge(const Graph &graph, int64_t item, int64_t edge) {
  const int64_t ends[2] = {graph.edges.at(item, edge, 0), graph.edges.at(item, edge, 1)};
  for (const int64_t end : ends)
    if (end < 0 || end >= graph.num_vertices)
      fail(ValueFault::edge_index_out_of_range, graph.num_vertices, end, edge, item);
  return {static_cast<int32_t>(ends[0]), static_cast<int32_t>(ends[1])};
}

void list_edges(const Graph &graph, int64_t item, Ends *ends) {
  if (graph.kind == TREESCAN_EDGES) {
    for (int64_t e = 0; e < graph.num_edges; ++e) ends[e] = list_edge(graph, item, e);
    return;
  }
  if (graph.kind == TREESCAN_GRID) {
    list_grid(graph, ends);
    return;
  }
  const Stencil stencil(graph);
  for (int64_t v = 0; v < graph.num_vertices; ++v)
    for (int64_t k = 0; k < stencil.count; ++k) {
      const int64_t e = stencil.edge(v, k);
      if (e >= 0) ends[e] = {static_cast<int32_t>(v), static_cast<int32_t>(v + stencil.distance(k))};
    }
}

}  // namespace treescan
