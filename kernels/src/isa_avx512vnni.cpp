// The kernels for one instruction set; CMakeLists.txt has its flags.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine.h"
#include "halves.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define CW_AVX512
#define CW_VNNI
namespace avx512vnni {
#include "simd.h"

#include "kernels.inl"

static bool usable() { return __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"); }
}  // namespace avx512vnni
const Isa isa_avx512vnni{"avx512vnni", avx512vnni::usable, avx512vnni::run_item, avx512vnni::weigh};
#else
const Isa isa_avx512vnni{"avx512vnni", [] { return false; }, nullptr, nullptr};
#endif
