// The Python module treescan._C: the C interface with torch tensors in place of views.
//
// Tensors come as plain Python objects and are read through their attributes, so no torch header is compiled, one build serves
// every torch version, and whatever has such attributes will do: treescan.numpy lends them to arrays. Outputs are allocated by the caller. Everything about values is checked by the
// library; here only what a view cannot express is: a dtype, a device or a rank that it has no code for.
//
// On a CUDA device a call runs on torch's current stream there, in scratch memory of torch's allocator.
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
  PyObject *device = PyUnicode_InternFromString("device");
  PyObject *dtype = PyUnicode_InternFromString("dtype");
  PyObject *get_device = PyUnicode_InternFromString("get_device");
  PyObject *is_cpu = PyUnicode_InternFromString("is_cpu");
  PyObject *is_cuda = PyUnicode_InternFromString("is_cuda");
  PyObject *shape = PyUnicode_InternFromString("shape");
  PyObject *stride = PyUnicode_InternFromString("stride");
  PyObject *dtypes = PyDict_New();  // torch.dtype -> treescan_dtype
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

// What messages show of an object: torch.int8, (2, 3), cuda:0.
std::string text(py::handle object) { return py::str(object).cast<std::string>(); }

// The view of a tensor, or of none.
class View {
 public:
  View(const char *name, py::handle tensor) : present_(!tensor.is_none()) {
    if (!present_) return;
    const Names &attributes = names();
    if (attribute(tensor, attributes.is_cpu).ptr() == Py_True) {
      view_.device = TREESCAN_CPU;
    } else if (attribute(tensor, attributes.is_cuda).ptr() == Py_True) {
      view_.device = TREESCAN_CUDA;
      view_.device_index = method(tensor, attributes.get_device).cast<int32_t>();
    } else {
      throw_python(PyExc_ValueError, std::string(name) + " must be on the CPU or a CUDA device, got " +
                                         text(attribute(tensor, attributes.device)));
    }
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
  bool on_cuda() const { return view_.device == TREESCAN_CUDA; }
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

// Functions of _native.py's: the current stream of a device, and new memory there. Never freed, as the names.
PyObject *stream_of = nullptr;
PyObject *allocate_on = nullptr;

void lend_torch_cuda(const py::object &stream, const py::object &allocate) {
  stream_of = py::object(stream).release().ptr();
  allocate_on = py::object(allocate).release().ptr();
}

// function(workspace, stream) on the device of `tensor`. The scratch memory may go when the call returns: torch gives it to
// nobody but later work of the same stream.
template <class Function>
void call_on_device_of(const View &tensor, Function &&function) {
  if (!tensor.on_cuda()) return call([&] { return function(nullptr, nullptr); });
  treescan_workspace workspace{};
  call([&] { return function(&workspace, nullptr); });
  const py::int_ device(tensor.get()->device_index);
  const py::object memory = py::handle(allocate_on)(std::max<int64_t>(workspace.size, 64), device);
  workspace.data = PyLong_AsVoidPtr(method(memory, names().data_ptr).ptr());
  void *const stream = PyLong_AsVoidPtr(py::handle(stream_of)(device).ptr());
  if (PyErr_Occurred()) throw py::error_already_set();
  call([&] { return function(&workspace, stream); });
}

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
  call_on_device_of(inputs, [&](auto... where) {
    return treescan_scan(direction, parents, orders, inputs, factors, outputs, where...);
  });
}

void scan_backward(int32_t direction, py::handle parent, py::handle order, py::handle x, py::handle weights,
                   py::handle grad, py::handle grad_x, py::handle grad_weights) {
  const View parents("parent", parent), orders("order", order), inputs("x", x), factors("weights", weights),
      grads("grad", grad), input_grads("grad_x", grad_x), factor_grads("grad_weights", grad_weights);
  call_on_device_of(inputs, [&](auto... where) {
    return treescan_scan_backward(direction, parents, orders, inputs, factors, grads, input_grads, factor_grads,
                                  where...);
  });
}

// The tensors of a selective scan, or those of its gradients, in the order of the interface's structures.
class SelectiveViews {
 public:
  SelectiveViews(const std::vector<py::object> &tensors, bool delta_softplus)
      : u_("u", tensors.at(0)), delta_("delta", tensors.at(1)), A_("A", tensors.at(2)), B_("B", tensors.at(3)),
        C_("C", tensors.at(4)), D_("D", tensors.at(5)), z_("z", tensors.at(6)), delta_bias_("delta_bias", tensors.at(7)),
        inputs_{u_, delta_, A_, B_, C_, D_, z_, delta_bias_, delta_softplus},
        gradients_{u_, delta_, A_, B_, C_, D_, z_, delta_bias_} {}
  SelectiveViews(const SelectiveViews &) = delete;
  SelectiveViews &operator=(const SelectiveViews &) = delete;

  const treescan_selective_inputs *inputs() const { return &inputs_; }
  const treescan_selective_gradients *gradients() const { return &gradients_; }

 private:
  View u_, delta_, A_, B_, C_, D_, z_, delta_bias_;
  treescan_selective_inputs inputs_;
  treescan_selective_gradients gradients_;
};

void selective_scan(int32_t direction, py::handle parent, py::handle order, const std::vector<py::object> &inputs,
                    bool delta_softplus, py::handle y, py::handle last_state) {
  const View parents("parent", parent), orders("order", order), outputs("y", y), states("last_state", last_state);
  const SelectiveViews views(inputs, delta_softplus);
  call_on_device_of(outputs, [&](auto... where) {
    return treescan_selective_scan(direction, parents, orders, views.inputs(), outputs, states, where...);
  });
}

void selective_scan_backward(int32_t direction, py::handle parent, py::handle order,
                             const std::vector<py::object> &inputs, bool delta_softplus, py::handle grad_y,
                             py::handle grad_last_state, const std::vector<py::object> &gradients) {
  const View parents("parent", parent), orders("order", order), grads("grad_y", grad_y),
      state_grads("grad_last_state", grad_last_state);
  const SelectiveViews views(inputs, delta_softplus), outputs(gradients, false);
  call_on_device_of(grads, [&](auto... where) {
    return treescan_selective_scan_backward(direction, parents, orders, views.inputs(), grads, state_grads,
                                            outputs.gradients(), where...);
  });
}

void edge_weights(int32_t kind, const Sizes &sizes, const Contexts &context_length, py::handle edges,
                  py::handle features, int32_t metric, bool exponential, py::handle cost) {
  const GraphView graph(kind, sizes, context_length, edges);
  const View inputs("features", features), outputs("cost", cost);
  call_on_device_of(inputs, [&](auto... where) {
    return treescan_edge_weights(graph, inputs, metric, exponential, outputs, where...);
  });
}

void minimum_spanning_tree(int32_t kind, const Sizes &sizes, const Contexts &context_length, py::handle edges,
                           py::handle cost, bool maximum, py::handle root, py::handle segments, py::handle parent,
                           py::handle order, py::handle depth, py::handle edge) {
  const GraphView graph(kind, sizes, context_length, edges);
  const View costs("cost", cost), roots("root", root), labels("segments", segments);
  const TreeOutput tree(parent, order, depth, edge);
  call_on_device_of(costs, [&](auto... where) {
    return treescan_minimum_spanning_tree(graph, costs, maximum, roots, labels, tree, where...);
  });
}

void random_spanning_tree(int32_t kind, const Sizes &sizes, const Contexts &context_length, py::handle edges,
                          py::handle cost, uint64_t seed, py::handle root, py::handle parent, py::handle order,
                          py::handle depth, py::handle edge) {
  const GraphView graph(kind, sizes, context_length, edges);
  const View costs("cost", cost), roots("root", root);
  const TreeOutput tree(parent, order, depth, edge);
  call_on_device_of(costs, [&](auto... where) {
    return treescan_random_spanning_tree(graph, costs, seed, roots, tree, where...);
  });
}

void tree_from_edges(py::handle edges, py::handle root, bool by_edge, py::handle parent, py::handle order,
                     py::handle depth, py::handle edge) {
  const View pairs("edges", edges), roots("root", root);
  const TreeOutput tree(parent, order, depth, edge);
  const int32_t sibling_order = by_edge ? TREESCAN_BY_EDGE : TREESCAN_BY_VERTEX;
  call_on_device_of(pairs, [&](auto... where) {
    return treescan_tree_from_edges(pairs, roots, sibling_order, tree, where...);
  });
}

void tree_from_parents(py::handle parent, py::handle root, py::handle parent_out, py::handle order,
                       py::handle depth) {
  const View parents("parent", parent), roots("root", root);
  const TreeOutput tree(parent_out, order, depth, py::none());
  call_on_device_of(parents, [&](auto... where) { return treescan_tree_from_parents(parents, roots, tree, where...); });
}

void forest_from_parents(py::handle parent, py::handle parent_out, py::handle order, py::handle depth) {
  const View parents("parent", parent);
  const TreeOutput tree(parent_out, order, depth, py::none());
  call_on_device_of(parents, [&](auto... where) { return treescan_forest_from_parents(parents, tree, where...); });
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
  module.def("scan_backward", &scan_backward);
  module.def("selective_scan", &selective_scan);
  module.def("selective_scan_backward", &selective_scan_backward);
  module.def("edge_weights", &edge_weights);
  module.def("minimum_spanning_tree", &minimum_spanning_tree);
  module.def("random_spanning_tree", &random_spanning_tree);
  module.def("tree_from_edges", &tree_from_edges);
  module.def("tree_from_parents", &tree_from_parents);
  module.def("forest_from_parents", &forest_from_parents);
}
#undef PyInit__C

extern "C" PYBIND11_EXPORT PyObject *PyInit__C() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return start_in_main_interpreter();
  PyErr_SetString(PyExc_ImportError, "treescan can be imported in the main interpreter only, not in a subinterpreter: torch's "
                                     "operators and the thread pool belong to the whole process");
  return nullptr;
}
