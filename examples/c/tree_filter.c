/* Smooths a picture along its tree: tree_filter IN.ppm OUT.ppm [SOFTNESS]. README.md says what that is. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <treescan/treescan.h>

static void stop(const char *what, const char *why) {
  fprintf(stderr, "tree_filter: %s: %s\n", what, why);
  exit(1);
}

static void check(treescan_status status) {
  if (status != TREESCAN_OK) stop(treescan_status_name((int32_t)status), treescan_last_error());
}

static void *allocate(int64_t count, size_t size) {
  void *memory = calloc((size_t)count, size);
  if (!memory) stop("memory", "there isn't enough");
  return memory;
}

/* The next number of a PPM header, and the one character behind it; -1 if there is none. */
static int64_t read_number(FILE *file) {
  int64_t number = 0;
  int c = getc(file);
  while (isspace(c) || c == '#') {
    if (c == '#')
      while (c != '\n' && c != EOF) c = getc(file);
    c = getc(file);
  }
  if (!isdigit(c)) return -1;
  for (; isdigit(c); c = getc(file))
    if (number < 1000000) number = 10 * number + (c - '0');
  return number;
}

int main(int count, char **arguments) {
  if (count < 3 || count > 4) stop("usage", "tree_filter IN.ppm OUT.ppm [SOFTNESS]");
  /* The library that is loaded may be another one than that whose header was compiled. */
  check(treescan_check_version(TREESCAN_VERSION));
  const float softness = count == 4 ? (float)atof(arguments[3]) : 8.0f;
  if (!(softness > 0)) stop("SOFTNESS", "expected a number above 0");

  /* The picture: grey (P5) or colours (P6), a byte for each. */
  FILE *file = fopen(arguments[1], "rb");
  if (!file) stop(arguments[1], "can't be read");
  const int magic = getc(file) == 'P' ? getc(file) : EOF;
  const int64_t channels = magic == '6' ? 3 : magic == '5' ? 1 : 0;
  const int64_t width = read_number(file), height = read_number(file), largest = read_number(file);
  if (!channels || width < 1 || height < 1 || largest != 255) stop(arguments[1], "expected a PPM or PGM file of bytes");
  const int64_t pixels = width * height;

  /* Floats, pixel by pixel, with a channel of ones behind the colours. */
  const int64_t step = channels + 1;
  unsigned char *bytes = allocate(pixels * channels, 1);
  if (fread(bytes, (size_t)channels, (size_t)pixels, file) != (size_t)pixels) stop(arguments[1], "ends early");
  fclose(file);
  float *values = allocate(pixels * step, sizeof *values), *sums = allocate(pixels * step, sizeof *sums);
  for (int64_t v = 0; v < pixels; ++v) {
    for (int64_t c = 0; c < channels; ++c) values[v * step + c] = bytes[v * channels + c];
    values[v * step + channels] = 1;
  }

  /* What neighbours differ by, and the tree that avoids large differences. Views say how memory is read: here one is of the
   * colours alone. */
  treescan_graph grid = {0};
  grid.kind = TREESCAN_GRID;
  grid.connectivity = 4;
  grid.width = width;
  grid.height = height;
  int64_t edges;
  check(treescan_graph_num_edges(&grid, &edges));
  float *cost = allocate(edges + 1, sizeof *cost), *weights = allocate(pixels, sizeof *weights);
  int32_t *parent = allocate(pixels, sizeof *parent), *order = allocate(pixels, sizeof *order);
  int32_t *edge = allocate(pixels, sizeof *edge), corner = 0;
  const treescan_tensor colours = {values, TREESCAN_FLOAT32, TREESCAN_CPU, 0, 3, {1, channels, pixels}, {0, 1, step}};
  const treescan_tensor costs = {cost, TREESCAN_FLOAT32, TREESCAN_CPU, 0, 2, {1, edges}, {edges, 1}};
  const treescan_tensor root = {&corner, TREESCAN_INT32, TREESCAN_CPU, 0, 1, {1}, {1}};
  const treescan_tensor parents = {parent, TREESCAN_INT32, TREESCAN_CPU, 0, 2, {1, pixels}, {pixels, 1}};
  const treescan_tensor orders = {order, TREESCAN_INT32, TREESCAN_CPU, 0, 2, {1, pixels}, {pixels, 1}};
  const treescan_tensor tree_edges = {edge, TREESCAN_INT32, TREESCAN_CPU, 0, 2, {1, pixels}, {pixels, 1}};
  const treescan_tree_output tree = {&parents, &orders, NULL, &tree_edges};
  check(treescan_edge_weights(&grid, &colours, TREESCAN_L1, 0, &costs, NULL, NULL));
  check(treescan_minimum_spanning_tree(&grid, &costs, 0, &root, NULL, &tree, NULL, NULL));

  /* The smaller the step from a pixel to its parent, the more passes. One weight serves all channels: their stride is 0. */
  for (int64_t v = 0; v < pixels; ++v) weights[v] = edge[v] < 0 ? 0 : softness / (softness + cost[edge[v]]);
  const treescan_tensor x = {values, TREESCAN_FLOAT32, TREESCAN_CPU, 0, 3, {1, step, pixels}, {0, 1, step}};
  const treescan_tensor w = {weights, TREESCAN_FLOAT32, TREESCAN_CPU, 0, 3, {1, step, pixels}, {0, 0, 1}};
  const treescan_tensor y = {sums, TREESCAN_FLOAT32, TREESCAN_CPU, 0, 3, {1, step, pixels}, {0, 1, step}};
  check(treescan_scan(TREESCAN_BOTH, &parents, &orders, &x, &w, &y, NULL, NULL));

  /* Sums of colours over sums of ones are means. */
  for (int64_t v = 0; v < pixels; ++v)
    for (int64_t c = 0; c < channels; ++c)
      bytes[v * channels + c] = (unsigned char)(sums[v * step + c] / sums[v * step + channels] + 0.5f);
  file = fopen(arguments[2], "wb");
  if (!file) stop(arguments[2], "can't be written");
  fprintf(file, "P%c\n%lld %lld\n255\n", magic, (long long)width, (long long)height);
  if (fwrite(bytes, (size_t)channels, (size_t)pixels, file) != (size_t)pixels || fclose(file) != 0)
    stop(arguments[2], "can't be written");

  free(bytes), free(values), free(sums), free(cost), free(weights), free(parent), free(order), free(edge);
  return 0;
}
