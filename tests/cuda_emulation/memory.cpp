// Every access of a kernel comes by here: is it the device's memory, was it written, does it race, what does it move.
#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "session.h"

namespace treescan::emulation {

bool accesses_seen = false;

// Pieces lie apart, so that a small overflow hits none. AddressSanitizer sees to that itself.
#ifdef __SANITIZE_ADDRESS__
constexpr size_t apart = 0;
#else
constexpr size_t apart = 256;
#endif
constexpr int poison = 0xcb;

Memory::Memory(size_t size, size_t alignment, bool shadowed)
    : bytes(size), block_(::operator new(size + 2 * apart, std::align_val_t{alignment})), alignment_(alignment) {
  begin = static_cast<char *>(block_) + apart;
  std::memset(block_, poison, size + 2 * apart);
  if (shadowed) shadow = std::make_unique<Shadow>(size);
}

Memory::~Memory() { ::operator delete(block_, std::align_val_t{alignment_}); }

Allocation *Session::find(const void *address) {
  for (const auto *const kind : {&pinned_memory(), &memory}) {
    const auto next = kind->upper_bound(reinterpret_cast<uintptr_t>(address));
    Allocation *const below = next == kind->begin() ? nullptr : std::prev(next)->second.get();
    if (kind == &memory || (below && below->holds(address, 1))) return below;
  }
  return nullptr;
}

// ---- Shared memory ----

static void *add_shared(Block &block, const char *key, size_t bytes, size_t alignment) {
  block.shared.push_back({key, std::make_unique<Memory>(bytes, std::max<size_t>(alignment, 16), accesses_seen)});
  return block.shared.back().memory->begin;
}

void *shared_array(const char *key, size_t bytes, size_t alignment) {
  Block &block = *running->block;
  for (const SharedArray &array : block.shared)
    if (array.key == key) return array.memory->begin;
  block.shared_bytes += bytes;
  const size_t declared = block.shared_bytes - launching->shared_bytes;
  if (declared > 48 * 1024)
    stop(Fault::shared_too_large,
         [&] { return "arrays of " + std::to_string(declared) + " bytes, of at most 48 KiB"; });
  if (block.shared_bytes > session().device.shared_opt_in)
    stop(Fault::shared_too_large, [&] {
      return std::to_string(block.shared_bytes) + " bytes with the dynamic ones, of at most " +
             std::to_string(session().device.shared_opt_in);
    });
  return add_shared(block, key, bytes, alignment);
}

void *shared_dynamic() {
  Block &block = *running->block;
  for (const SharedArray &array : block.shared)
    if (!array.key) return array.memory->begin;
  return add_shared(block, nullptr, 0, 16);
}

// ---- Accesses ----

static const char *kind(Access access) { return is_atomic(access) ? "atomic" : writes(access) ? "write" : "read"; }

static std::string what(Access access, size_t bytes) { return std::to_string(bytes) + "-byte " + kind(access); }

static std::string nearest(const void *address, const Thread &t) {
  const auto *wanted = static_cast<const char *>(address);
  const auto say = [wanted](const std::string &name, const Memory &memory) {
    const long offset = wanted - memory.begin, size = static_cast<long>(memory.bytes);
    const std::string where = offset < 0      ? std::to_string(-offset) + " bytes before "
                              : offset < size ? std::to_string(offset) + " bytes into "
                                              : std::to_string(offset - size) + " bytes past the end of ";
    return where + name + " of " + std::to_string(size) + " bytes";
  };
  const auto is_near = [wanted](const Memory &memory) {
    return wanted >= memory.begin - apart && wanted < memory.begin + memory.bytes + apart;
  };
  for (const SharedArray &array : t.block->shared)
    if (is_near(*array.memory)) return say(array.key ? "a shared array" : "the dynamic shared memory", *array.memory);
  for (const auto &block : launching->blocks)
    for (const SharedArray &array : block->shared)
      if (block.get() != t.block && is_near(*array.memory)) return say("another block's shared memory", *array.memory);
  for (const Thread *other : launching->threads)
    if (other->fiber.holds(address)) return "a local variable of " + describe(*other);
  if (const Allocation *below = session().find(address))
    if (is_near(*below) || wanted < below->begin + 2 * below->bytes)
      return say((below->freed ? "freed allocation #" : "allocation #") + std::to_string(below->number), *below);
  return "the host's memory";
}

// Counts what the lanes of a warp touch by one execution of one instruction.
static void note_request(Thread &t, const void *site, bool store, uintptr_t address, size_t bytes) {
  std::vector<uintptr_t> &sectors = t.block->requests[{t.number / 32, site, t.executions[site]++, store}];
  for (uintptr_t sector = address / 32; sector <= (address + bytes - 1) / 32; ++sector)
    if (std::find(sectors.begin(), sectors.end(), sector) == sectors.end()) sectors.push_back(sector);
}

void close_requests(Block &block, int64_t warp) {
  if (!session().options.count_sectors) return;
  const auto first =
      warp < 0 ? block.requests.begin() : block.requests.lower_bound({static_cast<uint32_t>(warp), nullptr, 0, false});
  const auto last = warp < 0 ? block.requests.end()
                             : block.requests.lower_bound({static_cast<uint32_t>(warp) + 1, nullptr, 0, false});
  for (auto request = first; request != last; ++request) {
    Counters &c = *launching->counters;
    (std::get<3>(request->first) ? c.stores : c.loads).requested_sectors +=
        static_cast<int64_t>(request->second.size());
  }
  block.requests.erase(first, last);
  for (Thread *t : block.threads)
    if (warp < 0 || t->number / 32 == static_cast<uint32_t>(warp)) t->executions.clear();
}

static void count_global(Thread &t, Allocation &memory, size_t offset, size_t bytes, Access access, const void *site) {
  Counters &c = *launching->counters;
  const bool store = writes(access);
  Counters::Direction &direction = store ? c.stores : c.loads;
  ++direction.accesses;
  direction.bytes += static_cast<int64_t>(bytes);
  ++direction.widths[static_cast<int64_t>(bytes)];
  std::vector<uint32_t> &touched = store ? memory.store_launch : memory.load_launch;
  for (size_t sector = offset / 32; sector <= (offset + bytes - 1) / 32; ++sector) {
    direction.touched_sectors += touched[sector] != session().launches;
    touched[sector] = session().launches;
  }
  if (session().options.count_sectors)
    note_request(t, site, store, reinterpret_cast<uintptr_t>(memory.begin) + offset, bytes);
}

static void access_from_host(const void *address, size_t bytes, Access access, const void *site) {
  const Allocation *memory = current ? current->find(address) : nullptr;
  if (memory && memory->holds(address, bytes) && !memory->pinned)
    find(Fault::host_access, what(access, bytes) + " at " + source_line(site) + " of the device's memory by host code");
}

void access(const void *address, size_t bytes, Access access, const void *site, bool aligned) {
  if (!running) return access_from_host(address, bytes, access, site);
  Thread &t = *running;
  const auto *arguments = static_cast<const char *>(launching->arguments);
  if (t.fiber.holds(address) || (address >= arguments && address < arguments + launching->argument_bytes)) return;
  make_way(is_atomic(access));
  if (!accesses_seen) return;

  const Memory *memory = nullptr;
  Allocation *global = nullptr;
  for (const SharedArray &array : t.block->shared)
    if (array.memory->holds(address, bytes)) memory = array.memory.get();
  if (!memory) {
    global = session().find(address);
    if (global && global->holds(address, bytes) && !global->freed) memory = global;
  }
  const auto report = [&](const std::string &rest) {
    return what(access, bytes) + " at " + source_line(site) + " by " + describe(t) + rest;
  };
  if (!memory) stop(Fault::out_of_bounds, [&] { return report(": " + nearest(address, t)); });
  if (aligned && reinterpret_cast<uintptr_t>(address) % bytes != 0)
    stop(Fault::misaligned, [&] { return report(" of " + nearest(address, t)); });

  const size_t offset = memory->offset(address);
  if (!is_atomic(access)) {
    if (global)
      count_global(t, *global, offset, bytes, access, site);
    else
      ++launching->counters->shared_accesses;
  }
  if (reads(access) && !memory->shadow->is_written(offset, bytes)) {
    if (session().reported.insert(launching->name + "unwritten" + source_line(site)).second)
      find(Fault::uninitialised, report(": " + nearest(address, t)));
  }
  if (writes(access)) {
    memory->shadow->mark_written(offset, bytes);
    if (access == Access::write) launching->quiet = 0;
  }
  Record other;
  if (session().races.access(*memory->shadow, offset, bytes, access, t.clock, site, &other)) {
    const std::string here = source_line(site), there = source_line(other.site);
    if (session().reported.insert(launching->name + here + what(access, bytes) + there + kind(other.access)).second) {
      const uint32_t lane = static_cast<uint32_t>(__builtin_ctz(other.lanes));
      find(Fault::race, report("; " + std::string(kind(other.access)) + " at " + there + " by " +
                               describe_thread(other.block, other.warp * 32u + lane) + "; " + nearest(address, t)));
    }
  }
}

template <class T>
T atomic(Atomic what, T *address, T operand, T compare) {
  const Access kind = what == Atomic::load    ? Access::atomic_read
                      : what == Atomic::store ? Access::atomic_store
                                              : Access::atomic_update;
  access(address, sizeof(T), kind, __builtin_return_address(0), true);
  if (running) {
    session().races.atomic(running->clock, address, kind);
    ++launching->counters->atomics;
  }
  const T old = *address;
  T value = old;
  switch (what) {
    case Atomic::add:
      value = static_cast<T>(old + operand);
      break;
    case Atomic::min:
      value = std::min(old, operand);
      break;
    case Atomic::max:
      value = std::max(old, operand);
      break;
    case Atomic::exchange:
    case Atomic::store:
      value = operand;
      break;
    case Atomic::compare:
      value = old == compare ? operand : old;
      break;
    case Atomic::bit_or:
      value = old | operand;
      break;
    case Atomic::bit_and:
      value = old & operand;
      break;
    case Atomic::load:
      break;
  }
  *address = value;
  if (running && value != old) launching->quiet = 0;
  return old;
}
template int atomic(Atomic, int *, int, int);
template unsigned atomic(Atomic, unsigned *, unsigned, unsigned);
template long atomic(Atomic, long *, long, long);
template unsigned long atomic(Atomic, unsigned long *, unsigned long, unsigned long);
template long long atomic(Atomic, long long *, long long, long long);
template unsigned long long atomic(Atomic, unsigned long long *, unsigned long long, unsigned long long);

// ---- Where an access stands in the source ----

std::string source_line(const void *site) {
  static std::map<const void *, std::string> known;
  std::string &line = known[site];
  if (!line.empty()) return line;
  line = "?";
  Dl_info info;
  link_map *module;
  if (!dladdr1(site, &info, reinterpret_cast<void **>(&module), RTLD_DL_LINKMAP)) return line;
  char program[1024] = "", command[2048];
  if (!*module->l_name && readlink("/proc/self/exe", program, sizeof program - 1) < 0) return line;
  // The instruction before the return address. What is inlined comes first, so that of our header is passed over.
  std::snprintf(command, sizeof command, "addr2line -i -e '%s' %#lx 2>/dev/null",
                *module->l_name ? module->l_name : program, reinterpret_cast<uintptr_t>(site) - 1 - module->l_addr);
  if (FILE *pipe = popen(command, "r")) {
    char text[4096];
    while (std::fgets(text, sizeof text, pipe)) {
      const std::string found(text, std::strcspn(text, " \n"));
      if (found.find("emulation.h:") != std::string::npos || found.find("??") == 0) continue;
      if (line == "?") line = found.substr(found.rfind('/') + 1);
    }
    pclose(pipe);
  }
  return line;
}

}  // namespace treescan::emulation

// ---- What the compiler calls before each access under -fsanitize=thread ----

#define TREESCAN_HOOK(name, bytes, kind, aligned)                                                               \
  extern "C" void name(const void *address) {                                                                   \
    treescan::emulation::access(address, bytes, treescan::emulation::Access::kind, __builtin_return_address(0), \
                                aligned);                                                                       \
  }
#define TREESCAN_HOOKS(bytes)                                     \
  TREESCAN_HOOK(__tsan_read##bytes, bytes, read, true)            \
  TREESCAN_HOOK(__tsan_write##bytes, bytes, write, true)          \
  TREESCAN_HOOK(__tsan_unaligned_read##bytes, bytes, read, false) \
  TREESCAN_HOOK(__tsan_unaligned_write##bytes, bytes, write, false)
TREESCAN_HOOKS(1)
TREESCAN_HOOKS(2)
TREESCAN_HOOKS(4)
TREESCAN_HOOKS(8)
TREESCAN_HOOKS(16)
#define TREESCAN_RANGE_HOOK(name, kind)                                                                         \
  extern "C" void name(const void *address, unsigned long bytes) {                                              \
    treescan::emulation::access(address, bytes, treescan::emulation::Access::kind, __builtin_return_address(0), \
                                false);                                                                         \
  }
TREESCAN_RANGE_HOOK(__tsan_read_range, read)
TREESCAN_RANGE_HOOK(__tsan_write_range, write)
// Objects of host code that kernels are launched from.
extern "C" void __tsan_vptr_update(void **, void *) {}
extern "C" void __tsan_vptr_read(void **) {}
extern "C" void __tsan_init() { treescan::emulation::accesses_seen = true; }
