// The Python module treescan._C: what isn't torch's. Build information, threads, and calls of the C interface on whatever has the
// attributes of a tensor in CPU memory, which treescan.numpy lends to arrays. Outputs are allocated by the caller. Everything
// about values is checked by the library; here only what a view cannot express is: a dtype or a rank that it has no code for.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#if !defined(_WIN32)
#include <pthread.h>
#endif

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <new>
#include <optional>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "treescan/treescan.h"

namespace py = pybind11;

namespace {

[[noreturn]] void throw_python(PyObject *type, const std::string &message) {
  PyErr_SetString(type, message.c_str());
  throw py::error_already_set();
}

// ---- Threads ----

// torch's own pool, as the stable part of its C interface declares it.
using TorchBody = void (*)(int64_t begin, int64_t end, void *context);
using TorchParallelFor = int32_t (*)(int64_t begin, int64_t end, int64_t grain_size, TorchBody body, void *context);
using TorchNumThreads = int32_t (*)(uint32_t *num_threads);

TorchParallelFor torch_parallel_for = nullptr;
TorchNumThreads torch_num_threads = nullptr;
bool following_torch = false;
int32_t default_threads = 1;  // the library's own choice
thread_local bool torch_failed = false;

// Calls share it; whoever changes the thread pool has it alone, for no call may run meanwhile.
std::shared_mutex pool_mutex;

#if !defined(_WIN32)
// A child of fork has none of the threads that may have held it.
void renew_pool_mutex() { new (&pool_mutex) std::shared_mutex; }
#endif

struct Job {
  void (*body)(void *task, int64_t i);
  void *task;
};

void run_on_torch(void *, int64_t count, void (*body)(void *, int64_t), void *task) {
  Job job{body, task};
  const auto range = [](int64_t begin, int64_t end, void *context) {
    const Job &part = *static_cast<const Job *>(context);
    for (int64_t i = begin; i < end; ++i) part.body(part.task, i);
  };
  if (torch_parallel_for(0, count, 1, range, &job) != 0) torch_failed = true;
}

void follow_thread_count() {
  uint32_t count = 1;
  if (!following_torch || torch_num_threads(&count) != 0) return;
  const int32_t wanted = static_cast<int32_t>(std::clamp<uint32_t>(count, 1, 1024));
  if (treescan_get_num_threads() != wanted) treescan_set_num_threads(wanted);
}

// ---- Calls ----

void raise_on(treescan_status status) {
  if (status == TREESCAN_OK) return;
  PyObject *type = PyExc_ValueError;
  if (status == TREESCAN_UNSUPPORTED_DTYPE) type = PyExc_TypeError;
  if (status == TREESCAN_OUT_OF_MEMORY) type = PyExc_MemoryError;
  if (status == TREESCAN_INTERNAL) type = PyExc_RuntimeError;
  throw_python(type, treescan_last_error());
}

// Where the interpreter has ended meanwhile, Python before 3.14 ends the thread by unwinding it from PyEval_RestoreThread: no
// destructor may take the GIL back, for it would end the process.
template <class Function>
void without_gil(Function &&function) {
  PyThreadState *const state = PyEval_SaveThread();
  function();
  PyEval_RestoreThread(state);
}

template <class Function>
void call(Function &&function) {
  treescan_status status;
  torch_failed = false;
  without_gil([&] {
    std::shared_lock<std::shared_mutex> lock(pool_mutex);
    follow_thread_count();
    status = function();
  });
  raise_on(status);
  if (torch_failed) throw_python(PyExc_RuntimeError, "torch's thread pool failed to run a task");
}

// The same around calls of the library of torch operations, which come from any thread and without the GIL.
void begin_call() {
  torch_failed = false;
  pool_mutex.lock_shared();
  follow_thread_count();
}

int32_t end_call() {
  pool_mutex.unlock_shared();
  return torch_failed;
}

// None follows torch where it is there; a number is that of the library's own threads.
void set_num_threads(std::optional<int32_t> num_threads) {
  treescan_status status = TREESCAN_OK;
  without_gil([&] {
    std::unique_lock<std::shared_mutex> lock(pool_mutex);
    status = treescan_set_num_threads(num_threads.value_or(default_threads));
    if (status == TREESCAN_OK) {
      following_torch = !num_threads && torch_parallel_for && torch_num_threads;
      status = treescan_set_parallel_for(following_torch ? run_on_torch : nullptr, nullptr);
    }
  });
  raise_on(status);
}

int32_t get_num_threads() {
  call([] { return TREESCAN_OK; });
  return treescan_get_num_threads();
}

void lend_torch_pool(uintptr_t parallel_for, uintptr_t num_threads) {
  torch_parallel_for = reinterpret_cast<TorchParallelFor>(parallel_for);
  torch_num_threads = reinterpret_cast<TorchNumThreads>(num_threads);
  set_num_threads(std::nullopt);
}

// ---- Tensors ----

// Names of attributes, interned once. Never freed: the interpreter may be gone when static objects are.
struct Names {
  PyObject *data_ptr = PyUnicode_InternFromString("data_ptr");
  PyObject *dtype = PyUnicode_InternFromString("dtype");
  PyObject *shape = PyUnicode_InternFromString("shape");
  PyObject *stride = PyUnicode_InternFromString("stride");
  PyObject *dtypes = PyDict_New();  // dtype -> treescan_dtype
};

const Names &names() {
  static const Names *const instance = new Names;
  return *instance;
}

py::object attribute(py::handle object, PyObject *name) {
  PyObject *value = PyObject_GetAttr(object.ptr(), name);
  if (!value) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(value);
}

py::object method(py::handle object, PyObject *name) {
  PyObject *value = PyObject_CallMethodNoArgs(object.ptr(), name);
  if (!value) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(value);
}

// What messages show of an object: int8, (2, 3).
std::string text(py::handle object) { return py::str(object).cast<std::string>(); }

// The view of a tensor, or of none.
class View {
 public:
  View(const char *name, py::handle tensor) : present_(!tensor.is_none()) {
    if (!present_) return;
    const Names &attributes = names();
    view_.device = TREESCAN_CPU;
    const py::object dtype = attribute(tensor, attributes.dtype);
    PyObject *code = PyDict_GetItemWithError(attributes.dtypes, dtype.ptr());
    if (!code) throw_python(PyExc_TypeError, std::string(name) + " has an unsupported dtype: " + text(dtype));
    view_.dtype = static_cast<int32_t>(PyLong_AsLong(code));

    const py::object shape = attribute(tensor, attributes.shape);
    const py::object strides = method(tensor, attributes.stride);
    const Py_ssize_t ndim = PyTuple_Size(shape.ptr());
    if (ndim > TREESCAN_MAX_DIMS) {
      throw_python(PyExc_ValueError, std::string(name) + " must have at most " + std::to_string(TREESCAN_MAX_DIMS) +
                                         " dimensions, got shape " + text(py::tuple(shape)));
    }
    view_.ndim = static_cast<int32_t>(ndim);
    for (Py_ssize_t i = 0; i < ndim; ++i) {
      view_.sizes[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), i));
      view_.strides[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(strides.ptr(), i));
    }
    view_.data = PyLong_AsVoidPtr(method(tensor, attributes.data_ptr).ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
  }

  const treescan_tensor *get() const { return present_ ? &view_ : nullptr; }
  operator const treescan_tensor *() const { return get(); }

 private:
  treescan_tensor view_{};
  bool present_;
};

using Sizes = std::vector<int64_t>;
using Contexts = std::optional<std::vector<int64_t>>;

// A graph from the arguments that every op on graphs has, and the memory that its description refers to.
class GraphView {
 public:
  GraphView(int32_t kind, const Sizes &sizes, const Contexts &context_length, py::handle edges)
      : contexts_(context_length.value_or(Sizes())), edges_("edge_index", edges) {
    if (sizes.size() != 6) {
      throw_python(PyExc_ValueError,
                   "sizes must hold height, width, connectivity, length, window and num_vertices, got " +
                       std::to_string(sizes.size()) + " numbers");
    }
    graph_.kind = kind;
    graph_.height = sizes[0];
    graph_.width = sizes[1];
    graph_.connectivity = static_cast<int32_t>(std::clamp<int64_t>(sizes[2], INT32_MIN, INT32_MAX));
    graph_.length = sizes[3];
    graph_.window = sizes[4];
    graph_.num_vertices = sizes[5];
    graph_.edge_index = edges_;
    if (!contexts_.empty()) {
      context_view_.data = contexts_.data();
      context_view_.dtype = TREESCAN_INT64;
      context_view_.device = TREESCAN_CPU;
      context_view_.ndim = 1;
      context_view_.sizes[0] = static_cast<int64_t>(contexts_.size());
      context_view_.strides[0] = 1;
      graph_.context_length = &context_view_;
    }
  }
  GraphView(const GraphView &) = delete;
  GraphView &operator=(const GraphView &) = delete;

  operator const treescan_graph *() const { return &graph_; }

 private:
  std::vector<int64_t> contexts_;
  treescan_tensor context_view_{};
  View edges_;
  treescan_graph graph_{};
};

class TreeOutput {
 public:
  TreeOutput(py::handle parent, py::handle order, py::handle depth, py::handle edge)
      : parent_("parent", parent), order_("order", order), depth_("depth", depth), edge_("edge", edge) {
    output_ = {parent_, order_, depth_, edge_};
  }
  TreeOutput(const TreeOutput &) = delete;
  TreeOutput &operator=(const TreeOutput &) = delete;

  operator const treescan_tree_output *() const { return &output_; }

 private:
  View parent_, order_, depth_, edge_;
  treescan_tree_output output_{};
};

// ---- CUDA ----

void synchronize(int32_t device_index, uintptr_t stream) {
  call([&] { return treescan_synchronize(TREESCAN_CUDA, device_index, reinterpret_cast<void *>(stream)); });
}

void set_cuda_trees(const std::string &team) {
  call([&] { return treescan_set_cuda_trees(team.c_str()); });
}

void set_cuda_scans(const std::string &strategy) {
  call([&] { return treescan_set_cuda_scans(strategy.c_str()); });
}

// ---- The library's functions ----

void scan(int32_t direction, py::handle parent, py::handle order, py::handle x, py::handle weights, py::handle y) {
  const View parents("parent", parent), orders("order", order), inputs("x", x), factors("weights", weights),
      outputs("y", y);
  call([&] { return treescan_scan(direction, parents, orders, inputs, factors, outputs, nullptr, nullptr); });
}

void edge_weights(int32_t kind, const Sizes &sizes, const Contexts &context_length, py::handle edges,
                  py::handle features, int32_t metric, bool exponential, py::handle cost) {
  const GraphView graph(kind, sizes, context_length, edges);
  const View inputs("features", features), outputs("cost", cost);
  call([&] { return treescan_edge_weights(graph, inputs, metric, exponential, outputs, nullptr, nullptr); });
}

void minimum_spanning_tree(int32_t kind, const Sizes &sizes, const Contexts &context_length, py::handle edges,
                           py::handle cost, bool maximum, py::handle root, py::handle segments, py::handle parent,
                           py::handle order, py::handle depth, py::handle edge) {
  const GraphView graph(kind, sizes, context_length, edges);
  const View costs("cost", cost), roots("root", root), labels("segments", segments);
  const TreeOutput tree(parent, order, depth, edge);
  call([&] { return treescan_minimum_spanning_tree(graph, costs, maximum, roots, labels, tree, nullptr, nullptr); });
}

void forest_from_parents(py::handle parent, py::handle parent_out, py::handle order, py::handle depth) {
  const View parents("parent", parent);
  const TreeOutput tree(parent_out, order, depth, py::none());
  call([&] { return treescan_forest_from_parents(parents, tree, nullptr, nullptr); });
}

void set_instruction_set(const std::string &name) {
  call([&] { return treescan_set_instruction_set(name.c_str()); });
}

}  // namespace

// pybind11's own start, behind a question: in a subinterpreter of Python before 3.12 it would wait for itself.
#define PyInit__C start_in_main_interpreter
PYBIND11_MODULE(_C, module) {
#if !defined(_WIN32)
  static const int registered = pthread_atfork(nullptr, nullptr, renew_pool_mutex);
  (void)registered;
#endif
  module.doc() = "The treescan C library, called with torch tensors. Private: use the package treescan.";
  module.attr("HEADER_VERSION") = TREESCAN_VERSION;
  module.attr("DIRECTIONS") =
      py::dict(py::arg("up") = +TREESCAN_UP, py::arg("down") = +TREESCAN_DOWN, py::arg("both") = +TREESCAN_BOTH);
  module.attr("METRICS") =
      py::dict(py::arg("cosine") = +TREESCAN_COSINE, py::arg("l2") = +TREESCAN_L2, py::arg("l1") = +TREESCAN_L1);
  module.attr("GRAPH_KINDS") = py::dict(py::arg("grid") = +TREESCAN_GRID, py::arg("tokens") = +TREESCAN_TOKENS,
                                        py::arg("chain") = +TREESCAN_CHAIN, py::arg("edges") = +TREESCAN_EDGES);

  module.def("version", &treescan_version);
  module.def("build_info", &treescan_build_info);
  module.def("get_instruction_set", &treescan_get_instruction_set);
  module.def("set_instruction_set", &set_instruction_set);
  module.def("get_num_threads", &get_num_threads);
  module.def("set_num_threads", &set_num_threads);
  module.def("lend_torch_pool", &lend_torch_pool);
  module.def("call_guard", [] {
    return py::make_tuple(reinterpret_cast<uintptr_t>(&begin_call), reinterpret_cast<uintptr_t>(&end_call));
  });
  module.def("synchronize", &synchronize);
  module.def("set_cuda_trees", &set_cuda_trees);
  module.def("set_cuda_scans", &set_cuda_scans);
  default_threads = treescan_get_num_threads();
  module.def("set_dtypes", [](const py::object &library) {
    const std::pair<const char *, int32_t> codes[] = {
        {"float32", TREESCAN_FLOAT32},   {"float64", TREESCAN_FLOAT64}, {"float16", TREESCAN_FLOAT16},
        {"bfloat16", TREESCAN_BFLOAT16}, {"int32", TREESCAN_INT32},     {"int64", TREESCAN_INT64}};
    for (const auto &[name, code] : codes) {
      if (!py::hasattr(library, name)) continue;  // NumPy has no bfloat16
      const py::object dtype = library.attr(name);
      if (PyDict_SetItem(names().dtypes, dtype.ptr(), py::int_(code).ptr()) != 0) throw py::error_already_set();
    }
  });

  module.def("scan", &scan);
  module.def("edge_weights", &edge_weights);
  module.def("minimum_spanning_tree", &minimum_spanning_tree);
  module.def("forest_from_parents", &forest_from_parents);
}
#undef PyInit__C

extern "C" PYBIND11_EXPORT PyObject *PyInit__C() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return start_in_main_interpreter();
  PyErr_SetString(PyExc_ImportError, "treescan can be imported in the main interpreter only, not in a subinterpreter: torch's "
                                     "operators and the thread pool belong to the whole process");
  return nullptr;
}
