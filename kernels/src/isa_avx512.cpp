// The kernels for one instruction set; CMakeLists.txt has its flags.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine.h"
#include "halves.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define CW_AVX512
namespace avx512 {
#include "simd.h"

#include "kernels.inl"

static bool usable() { return __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"); }
}  // namespace avx512
const Isa isa_avx512{"avx512", avx512::usable, avx512::run_item, avx512::weigh};
#else
const Isa isa_avx512{"avx512", [] { return false; }, nullptr, nullptr};
#endif
