// The kernels for one instruction set; CMakeLists.txt has its flags.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine.h"
#include "halves.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#define CW_NEON
namespace neon {
#include "simd.h"

#include "kernels.inl"

#if defined(__linux__)
static bool usable() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
#else
static bool usable() { return true; }  // every Apple processor of this architecture has dot products
#endif
}  // namespace neon
const Isa isa_neon{"neon", neon::usable, neon::run_item, neon::weigh};
#else
const Isa isa_neon{"neon", [] { return false; }, nullptr, nullptr};
#endif
