/* The header is C99, and a C program gets from an image to a scan with nothing else. */
#include <stdio.h>
#include <string.h>

#include "treescan/treescan.h"

static int failures = 0;
#define CHECK(condition) \
  ((condition) ? (void)0 : (void)(++failures, fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition)))

static treescan_tensor view(void *data, treescan_dtype dtype, int32_t ndim, const int64_t *sizes) {
  treescan_tensor tensor;
  int64_t stride = 1;
  memset(&tensor, 0, sizeof tensor);
  tensor.data = data;
  tensor.dtype = (int32_t)dtype;
  tensor.device = TREESCAN_CPU;
  tensor.ndim = ndim;
  for (int32_t i = ndim; i-- > 0; stride *= sizes[i]) {
    tensor.sizes[i] = sizes[i];
    tensor.strides[i] = stride;
  }
  return tensor;
}

/* Parts in reverse order, on the calling thread. */
static void backwards(void *context, int64_t count, void (*body)(void *task, int64_t i), void *task) {
  ++*(int *)context;
  while (count-- > 0) body(task, count);
}

int main(void) {
  /* A 2x2 image whose cheapest edges are 0-1, 0-2 and 1-3 with costs 1, 2 and 3; 2-3 costs 4. */
  float image[4] = {0, 1, -2, 2 + 2}, cost[4], x[4] = {1, 2, 3, 4}, weights[4] = {9, 0.5f, 0.5f, 2}, y[4], grad_x[4],
        grad_weights[4], ones[4] = {1, 1, 1, 1};
  int32_t edges[8], root = 0, parent[4], order[4], depth[4], edge[4], pairs[6] = {0, 1, 0, 2, 1, 3};
  const int64_t features_shape[] = {1, 1, 2, 2}, cost_shape[] = {1, 4}, edges_shape[] = {4, 2}, root_shape[] = {1},
                tree_shape[] = {1, 4}, pairs_shape[] = {1, 3, 2};
  const treescan_tensor features = view(image, TREESCAN_FLOAT32, 4, features_shape);
  const treescan_tensor costs = view(cost, TREESCAN_FLOAT32, 2, cost_shape);
  const treescan_tensor listed = view(edges, TREESCAN_INT32, 2, edges_shape);
  const treescan_tensor roots = view(&root, TREESCAN_INT32, 1, root_shape);
  const treescan_tensor parents = view(parent, TREESCAN_INT32, 2, tree_shape);
  const treescan_tensor orders = view(order, TREESCAN_INT32, 2, tree_shape);
  const treescan_tensor depths = view(depth, TREESCAN_INT32, 2, tree_shape);
  const treescan_tensor tree_edges = view(edge, TREESCAN_INT32, 2, tree_shape);
  const treescan_tensor tree_pairs = view(pairs, TREESCAN_INT32, 3, pairs_shape);
  const treescan_tensor inputs = view(x, TREESCAN_FLOAT32, 4, features_shape);
  const treescan_tensor factors = view(weights, TREESCAN_FLOAT32, 4, features_shape);
  const treescan_tensor gradient = view(ones, TREESCAN_FLOAT32, 4, features_shape);
  const treescan_tensor outputs = view(y, TREESCAN_FLOAT32, 4, features_shape);
  const treescan_tensor x_gradient = view(grad_x, TREESCAN_FLOAT32, 4, features_shape);
  const treescan_tensor weights_gradient = view(grad_weights, TREESCAN_FLOAT32, 4, features_shape);
  const treescan_tree_output tree = {&parents, &orders, &depths, &tree_edges};
  const treescan_tree_output tree_without_edges = {&parents, &orders, &depths, NULL};
  const int32_t expected_edges[8] = {0, 2, 1, 3, 0, 1, 2, 3}, expected_parent[4] = {0, 0, 0, 1},
                expected_edge[4] = {-1, 2, 0, 1};
  treescan_graph graph;
  treescan_workspace workspace = {NULL, 0};
  int64_t count = 0;
  int calls = 0;

  memset(&graph, 0, sizeof graph);
  graph.kind = TREESCAN_GRID;
  graph.connectivity = 4;
  graph.height = graph.width = 2;

  CHECK(treescan_version() == TREESCAN_VERSION);
  CHECK(treescan_check_version(TREESCAN_VERSION) == TREESCAN_OK);
  CHECK(strlen(treescan_build_info()) > 0);
  CHECK(strcmp(treescan_last_error(), "") == 0);
  CHECK(strcmp(treescan_status_name(TREESCAN_NOT_A_TREE), "TREESCAN_NOT_A_TREE") == 0);
  CHECK(treescan_set_num_threads(2) == TREESCAN_OK && treescan_get_num_threads() == 2);
  CHECK(treescan_set_instruction_set("auto") == TREESCAN_OK && strlen(treescan_get_instruction_set()) > 0);
  CHECK(treescan_set_parallel_for(backwards, &calls) == TREESCAN_OK);

  CHECK(treescan_graph_num_vertices(&graph, &count) == TREESCAN_OK && count == 4);
  CHECK(treescan_graph_num_edges(&graph, &count) == TREESCAN_OK && count == 4);
  CHECK(treescan_graph_edges(&graph, &listed) == TREESCAN_OK);
  CHECK(memcmp(edges, expected_edges, sizeof edges) == 0);
  CHECK(treescan_edge_weights(&graph, &features, TREESCAN_L1, 0, &costs, NULL, NULL) == TREESCAN_OK);
  CHECK(cost[0] == 2 && cost[1] == 3 && cost[2] == 1 && cost[3] == 6);

  CHECK(treescan_minimum_spanning_tree(&graph, &costs, 0, &roots, NULL, &tree, &workspace, NULL) == TREESCAN_OK);
  CHECK(workspace.size > 0);
  CHECK(treescan_minimum_spanning_tree(&graph, &costs, 0, &roots, NULL, &tree, NULL, NULL) == TREESCAN_OK);
  CHECK(memcmp(parent, expected_parent, sizeof parent) == 0);
  CHECK(memcmp(edge, expected_edge, sizeof edge) == 0);
  CHECK(order[0] == 0 && order[3] == 3 && depth[3] == 2);
  CHECK(treescan_random_spanning_tree(&graph, &costs, 1, &roots, &tree, NULL, NULL) == TREESCAN_OK);
  CHECK(treescan_tree_from_edges(&tree_pairs, &roots, TREESCAN_BY_EDGE, &tree, NULL, NULL) == TREESCAN_OK);
  CHECK(memcmp(parent, expected_parent, sizeof parent) == 0);
  memset(parent, 0, sizeof parent);
  CHECK(treescan_tree_from_edges(&tree_pairs, &roots, TREESCAN_BY_VERTEX, &tree, NULL, NULL) == TREESCAN_OK);
  {
    int32_t given[4];
    const treescan_tensor given_view = view(given, TREESCAN_INT32, 2, tree_shape);
    memcpy(given, parent, sizeof given);
    memset(parent, -1, sizeof parent);
    CHECK(treescan_tree_from_parents(&given_view, NULL, &tree_without_edges, NULL, NULL) == TREESCAN_OK);
    CHECK(memcmp(parent, expected_parent, sizeof parent) == 0);
  }

  CHECK(treescan_scan(TREESCAN_UP, &parents, &orders, &inputs, &factors, &outputs, NULL, NULL) == TREESCAN_OK);
  CHECK(y[0] == 1 + 0.5f * 10 + 0.5f * 3 && y[1] == 10 && y[2] == 3 && y[3] == 4);
  CHECK(treescan_scan(TREESCAN_DOWN, &parents, &orders, &inputs, &factors, &outputs, NULL, NULL) == TREESCAN_OK);
  CHECK(y[0] == 1 && y[1] == 2.5f && y[2] == 3.5f && y[3] == 9);
  CHECK(treescan_scan_backward(TREESCAN_DOWN, &parents, &orders, &inputs, &factors, &gradient, &x_gradient,
                               &weights_gradient, NULL, NULL) == TREESCAN_OK);
  CHECK(grad_x[3] == 1 && grad_x[1] == 3 && grad_x[0] == 1 + 0.5f * 3 + 0.5f);
  CHECK(grad_weights[0] == 0 && grad_weights[1] == 3 && grad_weights[2] == 1 && grad_weights[3] == 2.5f);

  CHECK(treescan_scan(7, &parents, &orders, &inputs, &factors, &outputs, NULL, NULL) == TREESCAN_INVALID_ARGUMENT);
  CHECK(strstr(treescan_last_error(), "direction") != NULL);
  CHECK(treescan_set_parallel_for(NULL, NULL) == TREESCAN_OK);
  return failures != 0;
}
