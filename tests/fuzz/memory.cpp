// Memory runs out early in the fuzz targets: shapes that ask for more than this get an error, as they would anywhere sooner
// or later, instead of AddressSanitizer's end of the program.
#include <cstdlib>
#include <new>

namespace {

constexpr std::size_t most = std::size_t{16} << 20;

void *get(std::size_t size, std::size_t alignment) {
  void *const memory = size > most ? nullptr : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (!memory) throw std::bad_alloc();
  return memory;
}

}  // namespace

void *operator new(std::size_t size, std::align_val_t alignment) { return get(size, static_cast<std::size_t>(alignment)); }
void operator delete(void *memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
