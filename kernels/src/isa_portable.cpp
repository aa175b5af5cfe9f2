// The kernels for one instruction set; CMakeLists.txt has its flags.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine.h"
#include "halves.h"

#if 1

#define CW_PORTABLE
namespace portable {
#include "simd.h"

#include "kernels.inl"

static bool usable() { return true; }
}  // namespace portable
const Isa isa_portable{"portable", portable::usable, portable::run_item, portable::weigh};
#else
const Isa isa_portable{"portable", [] { return false; }, nullptr, nullptr};
#endif
