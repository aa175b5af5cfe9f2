// The kernels for one instruction set; CMakeLists.txt has its flags.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine.h"
#include "halves.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define CW_AVX2
namespace avx2 {
#include "simd.h"

#include "kernels.inl"

static bool usable() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }
}  // namespace avx2
const Isa isa_avx2{"avx2", avx2::usable, avx2::run_item, avx2::weigh};
#else
const Isa isa_avx2{"avx2", [] { return false; }, nullptr, nullptr};
#endif
