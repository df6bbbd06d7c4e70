#include "graph.h"

#include <algorithm>

#include "validate.h"

namespace treescan {

namespace {

// Edges of a token graph that start before vertex i, where vertices from `open` on link to `window` vertices ahead and
// those before to one; the last vertices have fewer ahead of them.
int64_t token_edges_before(int64_t i, int64_t length, int64_t window, int64_t open) {
  if (i <= open) return i;
  const int64_t full_until = std::max(open, length - window);  // vertices before have the whole window ahead
  if (i <= full_until) return open + (i - open) * window;
  const int64_t first = length - full_until, last = length - i + 1;  // edges of full_until ... of i-1: length-1-v each
  const int64_t count = i - full_until;
  return open + (full_until - open) * window + (first - 1 + last - 1) * count / 2;
}

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
  graph.longest_context = 0;
  graph.context_lengths = static_cast<const int64_t *>(lengths->data);
  graph.context_stride = lengths->sizes[0] == 1 ? 0 : lengths->strides[0];
  graph.batch = lengths->sizes[0] == 1 ? -1 : lengths->sizes[0];
  for (int64_t item = 0; item < lengths->sizes[0]; ++item) {
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

Stencil::Stencil(const Graph &graph) : graph_(graph) {
  switch (graph.kind) {
    case TREESCAN_GRID:
      count = graph.connectivity / 2;
      reach = graph.connectivity == 8 ? graph.width + 1 : graph.width;
      break;
    case TREESCAN_TOKENS:
      count = reach = graph.window;
      break;
    default:
      count = reach = 1;
  }
}

int64_t Stencil::distance(int64_t k) const {
  if (graph_.kind != TREESCAN_GRID) return k + 1;
  const int64_t w = graph_.width;
  const int64_t distances[max_grid_offsets] = {w, 1, w + 1, w - 1};
  return distances[k];
}

int64_t Stencil::edge(int64_t v, int64_t k) const {
  const int64_t vertices = graph_.num_vertices;
  if (graph_.kind == TREESCAN_GRID) {
    const int64_t h = graph_.height, w = graph_.width;
    const int64_t r = v / w, c = v % w;
    const bool below = r + 1 < h;
    const int64_t vertical = (h - 1) * w, horizontal = h * (w - 1), diagonal = (h - 1) * (w - 1);
    switch (k) {
      case 0: return below ? v : -1;
      case 1: return c + 1 < w ? vertical + r * (w - 1) + c : -1;
      case 2: return below && c + 1 < w ? vertical + horizontal + r * (w - 1) + c : -1;
      default: return below && c > 0 ? vertical + horizontal + diagonal + r * (w - 1) + c - 1 : -1;
    }
  }
  if (v + k + 1 >= vertices) return -1;
  if (graph_.kind == TREESCAN_CHAIN) return v;
  const int64_t open = vertices - graph_.longest_context;
  if (k > 0 && v < open) return -1;
  return token_edges_before(v, vertices, graph_.window, open) + k;
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
      fail(TREESCAN_INVALID_ARGUMENT, "graph->edge_index: expected vertices in [0, ", graph.num_vertices, "), got ", end,
           " at edge ", edge, " of item ", item);
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
