/* treescan: spanning trees of image grids and token graphs, and linear-time scans along them.
 *
 * This header is the whole C interface. It is C99, needs nothing but <stdint.h>, and every call obeys the same rules:
 *
 *  - Memory is the caller's. A treescan_tensor is a view: it owns nothing and is never kept after the call.
 *  - Every call returns a treescan_status. On anything but TREESCAN_OK, treescan_last_error() holds a sentence that
 *    names the argument, what was expected and what came; outputs are then unspecified.
 *  - Shapes and options are checked before anything is written, indices before they are followed. The library never
 *    prints, exits or throws.
 *  - Scratch memory: pass NULL as `workspace` and the library allocates (each calling thread keeps up to
 *    32 MiB of it for the next call); pass one whose `data` is NULL and the call
 *    checks its arguments, writes the bytes it needs into `size` and does nothing else; pass memory and it is used.
 *  - All tensors of a call lie on one device. `stream` is the CUDA stream to run on; it must be NULL in CPU memory.
 *  - On a CUDA device calls return before their work is done, and allocate in the order of the stream. What is wrong
 *    with values (an index out of range, a graph in parts) is found on the device: the results are then unspecified, scans
 *    give NaN, and the next call on that device, or treescan_synchronize, fails with the status and the message that the
 *    call would have had in CPU memory.
 *  - Results are the same to the last bit for every number of threads and every instruction set.
 *
 * Words: B batch items, C channels, V vertices, E graph edges. A dimension written "B|1" may be 1 to serve all items.
 */
#ifndef TREESCAN_TREESCAN_H
#define TREESCAN_TREESCAN_H

#include <stdint.h>

#define TREESCAN_VERSION_MAJOR 0
#define TREESCAN_VERSION_MINOR 1
#define TREESCAN_VERSION_PATCH 0
/* One number that grows with every release: 10000 * major + 100 * minor + patch. */
#define TREESCAN_VERSION (TREESCAN_VERSION_MAJOR * 10000 + TREESCAN_VERSION_MINOR * 100 + TREESCAN_VERSION_PATCH)

#if defined(_WIN32)
#  if defined(TREESCAN_BUILDING)
#    define TREESCAN_API __declspec(dllexport)
#  elif defined(TREESCAN_STATIC)
#    define TREESCAN_API
#  else
#    define TREESCAN_API __declspec(dllimport)
#  endif
#else
#  define TREESCAN_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum treescan_status {
  TREESCAN_OK = 0,
  TREESCAN_INVALID_ARGUMENT = 1, /* a null pointer, a wrong rank, size, stride or option, an index out of range */
  TREESCAN_UNSUPPORTED_DTYPE = 2,
  TREESCAN_UNSUPPORTED_DEVICE = 3,
  TREESCAN_TOO_LARGE = 4,    /* more vertices or edges than a 32-bit index can name, or a size that overflows */
  TREESCAN_DISCONNECTED = 5, /* the graph has no spanning tree */
  TREESCAN_NOT_A_TREE = 6,   /* a parent array with a cycle or, where one tree is wanted, without exactly one root */
  TREESCAN_OUT_OF_RANGE = 7, /* a result that its type cannot hold */
  TREESCAN_OUT_OF_MEMORY = 8,
  TREESCAN_INTERNAL = 9,     /* a fault of the library */
  TREESCAN_INCOMPATIBLE = 10 /* the library that runs doesn't fit the header: treescan_check_version */
} treescan_status;

typedef enum treescan_dtype {
  TREESCAN_FLOAT32 = 1,
  TREESCAN_FLOAT64 = 2,
  TREESCAN_FLOAT16 = 3,
  TREESCAN_BFLOAT16 = 4,
  TREESCAN_INT32 = 5,
  TREESCAN_INT64 = 6
} treescan_dtype;

typedef enum treescan_device { TREESCAN_CPU = 1, TREESCAN_CUDA = 2 } treescan_device;

#define TREESCAN_MAX_DIMS 4

/* A strided view of memory. Element (i, j, ...) lies at data + i*strides[0] + j*strides[1] + ... elements. */
typedef struct treescan_tensor {
  void *data;
  int32_t dtype;        /* treescan_dtype */
  int32_t device;       /* treescan_device */
  int32_t device_index; /* 0 for the CPU */
  int32_t ndim;
  int64_t sizes[TREESCAN_MAX_DIMS];
  int64_t strides[TREESCAN_MAX_DIMS]; /* in elements; any value for inputs */
} treescan_tensor;

typedef struct treescan_workspace {
  void *data;   /* scratch memory aligned to 64 bytes, or NULL to ask for `size` */
  int64_t size; /* its size in bytes */
} treescan_workspace;

typedef enum treescan_graph_kind {
  TREESCAN_GRID = 1,   /* height x width pixels, vertex r*width + c */
  TREESCAN_TOKENS = 2, /* a sequence whose last `context_length` vertices see `window` vertices ahead */
  TREESCAN_CHAIN = 3,  /* 0 - 1 - ... - (length-1) */
  TREESCAN_EDGES = 4   /* any list of edges */
} treescan_graph_kind;

/* A graph. Unused fields are ignored. The order of edges is part of its meaning: ties go to the lower index.
 *
 * Grid, 4-connected: every (r,c)-(r+1,c) row by row, then every (r,c)-(r,c+1) row by row; 8-connected adds every
 * (r,c)-(r+1,c+1) row by row, then every (r,c)-(r+1,c-1) row by row.
 * Tokens: by lower vertex, then by higher. Vertex i is linked to i+1, and inside the context (the last context_length
 * vertices) to i+2 ... i+window as well. If items differ in context_length, edges are numbered as for the longest
 * context; those that an item lacks take part in nothing. */
typedef struct treescan_graph {
  int32_t kind;         /* treescan_graph_kind */
  int32_t connectivity; /* grid: 4 or 8 */
  int64_t height, width;
  int64_t length; /* tokens, chain */
  int64_t window; /* tokens: >= 1 */
  const treescan_tensor *context_length; /* tokens: (B|1,) int64 in CPU memory, each in [0, length]; NULL: all of it */
  int64_t num_vertices;                  /* edges */
  const treescan_tensor *edge_index;     /* edges: (E, 2) or (B, E, 2) int32 or int64 */
} treescan_graph;

/* Where a call leaves a tree. All int32; each may be NULL if it isn't wanted, except parent.
 * A forest has several roots, in ascending order, and they come first: `order` is breadth-first from all of them at once.
 * Vertices in no tree come last, by ascending index; their parent, depth and edge are -1. */
typedef struct treescan_tree_output {
  const treescan_tensor *parent; /* (B, V): the parent of each vertex; the root is its own */
  const treescan_tensor *order;  /* (B, V): the vertex at each position, breadth-first, siblings by ascending index */
  const treescan_tensor *depth;  /* (B, V): edges between a vertex and the root */
  const treescan_tensor *edge;   /* (B, V): index of the graph edge between a vertex and its parent; -1 at the root */
} treescan_tree_output;

typedef enum treescan_metric {
  TREESCAN_COSINE = 1, /* -cos(a, b) = -(a.b) / (|a| |b|), of vectors of any finite length; 0 if either is 0 */
  TREESCAN_L2 = 2,     /* sum of (a-b)^2 */
  TREESCAN_L1 = 3      /* sum of |a-b| */
} treescan_metric;

typedef enum treescan_direction {
  TREESCAN_UP = 1,   /* u[v] = x[v] + sum over children c of w[c] u[c] */
  TREESCAN_DOWN = 2, /* d[v] = x[v] + w[v] d[parent[v]] */
  TREESCAN_BOTH = 3  /* y[v] = u[v] + w[v] (y[parent[v]] - w[v] u[v]) */
} treescan_direction;

/* ---- The library itself ---- */

/* TREESCAN_VERSION of the library that is running. */
TREESCAN_API int32_t treescan_version(void);

/* Whether a program may use the library that is running: pass TREESCAN_VERSION, the version of the header that the
 * program is compiled with. Fails with TREESCAN_INCOMPATIBLE and both versions in the message if the library is older
 * than the header, or newer by a major version (before version 1, by a minor one). treescan.hpp calls it by itself; a C
 * program does once, before any other call. */
TREESCAN_API treescan_status treescan_check_version(int32_t header_version);

/* One line: version, backends, instruction sets built and in use. Lives as long as the library. */
TREESCAN_API const char *treescan_build_info(void);

/* The message of this thread's last failed call, "" if none failed yet. Valid until this thread's next call. */
TREESCAN_API const char *treescan_last_error(void);

/* The name of a status, "TREESCAN_OK" and so on; "unknown status" for any other number. */
TREESCAN_API const char *treescan_status_name(int32_t status);

/* Runs body(task, i) for every i in [0, count), in any order and on any threads, and returns when all are done. */
typedef void (*treescan_parallel_for)(void *context, int64_t count, void (*body)(void *task, int64_t i), void *task);

/* Threads used by calls from any thread, 1 to 1024. The default is the number of processors. */
TREESCAN_API treescan_status treescan_set_num_threads(int32_t num_threads);
TREESCAN_API int32_t treescan_get_num_threads(void);

/* Lends the library a thread pool to use instead of its own; NULL gives it back its own. treescan_set_num_threads still
 * says into how many parts work is cut. Not to be called while another call runs. */
TREESCAN_API treescan_status treescan_set_parallel_for(treescan_parallel_for parallel_for, void *context);

/* The instruction set of the kernels: "baseline", "avx2", "avx512", or "auto" for the best that this machine has.
 * Results don't depend on it. */
TREESCAN_API treescan_status treescan_set_instruction_set(const char *name);
TREESCAN_API const char *treescan_get_instruction_set(void);

/* ---- Devices ---- */

/* Waits for the work of a stream and fails with the first thing that calls on that device found wrong with values since
 * this was last said. In CPU memory there is nothing to wait for. */
TREESCAN_API treescan_status treescan_synchronize(int32_t device, int32_t device_index, void *stream);

/* How CUDA builds trees: "block", one block of threads for each; "grid", all of them for one after the other; "auto" by
 * size. And how it scans: "levels", one depth after the other; "paths", heavy paths in parallel; "auto" by depth. Results
 * don't depend on either. A build without CUDA fails with TREESCAN_UNSUPPORTED_DEVICE. */
TREESCAN_API treescan_status treescan_set_cuda_trees(const char *team);
TREESCAN_API treescan_status treescan_set_cuda_scans(const char *strategy);

/* ---- Graphs ---- */

TREESCAN_API treescan_status treescan_graph_num_vertices(const treescan_graph *graph, int64_t *num_vertices);
TREESCAN_API treescan_status treescan_graph_num_edges(const treescan_graph *graph, int64_t *num_edges);

/* Writes both ends of every edge, in CPU memory, the lower vertex first for all kinds but TREESCAN_EDGES. edges: (E, 2) int32, or
 * (B, E, 2) where the graph's own list has that rank. */
TREESCAN_API treescan_status treescan_graph_edges(const treescan_graph *graph, const treescan_tensor *edges);

/* Edge weights, the costs of a graph's edges, from features.
 *   features  (B, C, V), or (B, C, H, W) for a grid: float32, float64, float16 or bfloat16
 *   exponential  not 0: exp of the metric. Fails with TREESCAN_OUT_OF_RANGE where cost's dtype can't hold it. A tree
 *             needs no exp: it keeps the order and loses digits.
 *   cost      (B, E) float32; float64 too for features of float64. Edges that an item lacks get +inf.
 * Channels are summed in one fixed order, in float32 (float64 for float64). Time O(B E C). */
TREESCAN_API treescan_status treescan_edge_weights(const treescan_graph *graph, const treescan_tensor *features,
                                                   int32_t metric, int32_t exponential, const treescan_tensor *cost,
                                                   treescan_workspace *workspace, void *stream);

/* ---- Trees ---- */

/* The spanning tree that is minimal under the order (cost, edge index); with `maximum` not 0 under (-cost, edge index).
 * -0 equals +0, NaN comes after +inf (after every number, for a maximum tree too).
 *   cost  (B, E) float32, float64, int32 or int64, compared as they are. With the three latter, costs are sorted first
 *   root  (B|1,) int32
 *   segments  NULL, or (B|1, V) int32: a label for each vertex. Edges between different labels take no part, and a vertex
 *         with a negative label is in no tree. The result is then the minimum spanning forest, whether connected or not;
 *         each of its trees is rooted at `root` if that lies in it, else at its lowest vertex
 * Time O(B E) but for the near-constant factor of union-find. Without segments it fails with TREESCAN_DISCONNECTED if there
 * is no spanning tree. */
TREESCAN_API treescan_status treescan_minimum_spanning_tree(const treescan_graph *graph, const treescan_tensor *cost,
                                                            int32_t maximum, const treescan_tensor *root,
                                                            const treescan_tensor *segments,
                                                            const treescan_tree_output *tree,
                                                            treescan_workspace *workspace, void *stream);

/* A random spanning tree: edges are drawn one by one without replacement, each with probability in proportion to
 * exp(-cost), and kept unless they close a cycle. The same seed gives the same tree anywhere. NaN is drawn last. */
TREESCAN_API treescan_status treescan_random_spanning_tree(const treescan_graph *graph, const treescan_tensor *cost,
                                                           uint64_t seed, const treescan_tensor *root,
                                                           const treescan_tree_output *tree,
                                                           treescan_workspace *workspace, void *stream);

typedef enum treescan_sibling_order {
  TREESCAN_BY_VERTEX = 1, /* siblings by ascending vertex: the canonical order */
  TREESCAN_BY_EDGE = 2    /* siblings by the position of their edge in the list, as the original extensions do */
} treescan_sibling_order;

/* Roots a tree that is given as a list of V-1 edges, (B, V-1, 2) int32 or int64. */
TREESCAN_API treescan_status treescan_tree_from_edges(const treescan_tensor *edges, const treescan_tensor *root,
                                                      int32_t sibling_order, const treescan_tree_output *tree,
                                                      treescan_workspace *workspace, void *stream);

/* Order and depth of a tree that is given as a parent array, (B, V) int32, whose root is its own parent.
 *   root  NULL keeps the root; (B|1,) int32 moves it there. tree->edge must be NULL. */
TREESCAN_API treescan_status treescan_tree_from_parents(const treescan_tensor *parent, const treescan_tensor *root,
                                                        const treescan_tree_output *tree,
                                                        treescan_workspace *workspace, void *stream);

/* The same for a forest: any number of vertices that are their own parents, and -1 for vertices in no tree. */
TREESCAN_API treescan_status treescan_forest_from_parents(const treescan_tensor *parent,
                                                          const treescan_tree_output *tree,
                                                          treescan_workspace *workspace, void *stream);

/* ---- Scans ---- */

/* Scans x along a tree.
 *   parent   (B|1, V) int32: a root is its own parent. There may be several trees (a forest): nothing flows between
 *            them. A vertex with -1 is in none; its results are zeros
 *   order    (B|1, V) int32: any order of the vertices in which roots come first, parents precede their children, and
 *            vertices without a parent come last. The result depends on parent alone; the canonical order is the
 *            fastest to start with
 *   x, weights, y  (B, C, V) or (B, C, H, W), one dtype: float32, float64, float16 or bfloat16. The half types are
 *            accumulated in float32. x and weights may overlap in any way (expanded); y must not overlap anything
 * The root's weight is not used. Time O(B C V). */
TREESCAN_API treescan_status treescan_scan(int32_t direction, const treescan_tensor *parent,
                                           const treescan_tensor *order, const treescan_tensor *x,
                                           const treescan_tensor *weights, const treescan_tensor *y,
                                           treescan_workspace *workspace, void *stream);

/* The adjoint of treescan_scan: from its inputs and the gradient of y, the gradients of x and weights.
 * The root's weight has gradient 0. */
TREESCAN_API treescan_status treescan_scan_backward(int32_t direction, const treescan_tensor *parent,
                                                    const treescan_tensor *order, const treescan_tensor *x,
                                                    const treescan_tensor *weights, const treescan_tensor *grad_y,
                                                    const treescan_tensor *grad_x, const treescan_tensor *grad_weights,
                                                    treescan_workspace *workspace, void *stream);

/* ---- Selective scans ---- */

/* What a selective scan is made of: the arguments of Mamba's selective scan, with a tree in place of the sequence. D
 * channels, N >= 1 states of each, G groups of D/G channels. One dtype for the tensors marked *: float32, float64, float16
 * or bfloat16; the others have the type that is computed in: float64 for float64, else float32. Everything is real. */
typedef struct treescan_selective_inputs {
  const treescan_tensor *u;          /* (B, D, V) * */
  const treescan_tensor *delta;      /* (B, D, V) * */
  const treescan_tensor *A;          /* (D, N) */
  const treescan_tensor *B, *C;      /* each (B, G, N, V) *, or the same for all vertices, (D, N) */
  const treescan_tensor *D;          /* (D,), or NULL for zeros */
  const treescan_tensor *z;          /* (B, D, V) *, or NULL for no gate */
  const treescan_tensor *delta_bias; /* (D,), or NULL for zeros */
  int32_t delta_softplus;            /* not 0: the step is softplus of delta + delta_bias, else it is that itself */
} treescan_selective_inputs;

/* Where the gradients go, each of its input's shape and dtype; NULL where the input is. */
typedef struct treescan_selective_gradients {
  const treescan_tensor *u, *delta, *A, *B, *C, *D, *z, *delta_bias;
} treescan_selective_gradients;

/* The selective scan. With the step s = delta + delta_bias or its softplus, every state n of every channel is scanned
 * along the tree as treescan_scan does it, with
 *
 *   x[v] = s[v] B[n, v] u[v]    weights[v] = exp(s[v] A[n])    into h[n, v]
 *   y[v] = (sum over n of C[n, v] h[n, v] + D u[v]) silu(z[v])
 *
 * silu(z) = z / (1 + exp(-z)), 1 without z. States exist for a tile at a time: no memory of size B D N V is used.
 *   parent, order  as for treescan_scan
 *   y           (B, D, V) of u's dtype; must not overlap anything
 *   last_state  (B, D, N) of the type that is computed in: h of vertex V-1, zeros if that is in no tree. On a chain with
 *               TREESCAN_DOWN it is the state after the last token. NULL if it isn't wanted
 * Half types are accumulated in float32. exp is the library's own. Time O(B D N V). */
TREESCAN_API treescan_status treescan_selective_scan(int32_t direction, const treescan_tensor *parent,
                                                     const treescan_tensor *order,
                                                     const treescan_selective_inputs *inputs, const treescan_tensor *y,
                                                     const treescan_tensor *last_state, treescan_workspace *workspace,
                                                     void *stream);

/* The adjoint of treescan_selective_scan: from its inputs and the gradients of y and last_state (NULL for zeros), the
 * gradients of all inputs. Sums over items, vertices and channels are in one fixed order. */
TREESCAN_API treescan_status treescan_selective_scan_backward(int32_t direction, const treescan_tensor *parent,
                                                              const treescan_tensor *order,
                                                              const treescan_selective_inputs *inputs,
                                                              const treescan_tensor *grad_y,
                                                              const treescan_tensor *grad_last_state,
                                                              const treescan_selective_gradients *gradients,
                                                              treescan_workspace *workspace, void *stream);

#ifdef __cplusplus
}
#endif
#endif
