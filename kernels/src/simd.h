// Sixteen floats, sixteen sums of integers and 64 bytes of weights, for each instruction set; every kernel is written once over them.
//
// Included inside an instruction set's namespace (isa_*.cpp), after its intrinsics. `fma` is one rounding where the processor has it;
// files are compiled with -ffp-contract=off, so that nothing else becomes one behind our back and equal rows stay equal in every tile.
typedef int32_t Four __attribute__((may_alias));  // four bytes of quantised activations

#if defined(CW_AVX512)

struct V { __m512 v; };
struct Sums { __m512i v; };
struct Weights { __m512i v; };
constexpr int TILE_ROWS = 8, ATTEND_ROWS = 6, ATTEND_WIDTH = 4;

inline V load(const float *p) { return {_mm512_loadu_ps(p)}; }
inline void store(float *p, V a) { _mm512_storeu_ps(p, a.v); }
inline V all(float x) { return {_mm512_set1_ps(x)}; }
inline V operator+(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
inline V operator-(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline V operator*(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline V operator/(V a, V b) { return {_mm512_div_ps(a.v, b.v)}; }
inline V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline V max(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }
inline V min(V a, V b) { return {_mm512_min_ps(a.v, b.v)}; }
inline V absolute(V a) { return {_mm512_abs_ps(a.v)}; }
inline V nearest(V a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// p * 2^n, or 0 where x < least; n is whole.
inline V scaled_unless_below(V x, V least, V p, V n) {
  return {_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x.v, least.v, _CMP_NLT_UQ), p.v, n.v)};
}
inline float sum(V a) { return _mm512_reduce_add_ps(a.v); }
inline float largest(V a) { return _mm512_reduce_max_ps(a.v); }
inline V from_half(const uint16_t *p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p))}; }
inline void to_half(uint16_t *p, V a) {
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline V from_bfloat(const uint16_t *p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16))};
}
// Sixteen pairs of bytes, widened, and their products with one pair of shorts.
struct Pairs { __m512i v; };
inline Pairs load_pairs(const int8_t *p) { return {_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p))}; }
inline Sums dot_pairs(Sums a, Pairs w, int32_t two) {
#if defined(CW_VNNI)
  return {_mm512_dpwssd_epi32(a.v, w.v, _mm512_set1_epi32(two))};
#else
  return {_mm512_add_epi32(a.v, _mm512_madd_epi16(w.v, _mm512_set1_epi32(two)))};
#endif
}
inline void store_shorts(int16_t *p, V a) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(a.v))); }
// Rounds, and stores sixteen signed bytes; their sum.
inline int store_bytes(int8_t *p, V a) {
  const __m512i q = _mm512_cvtps_epi32(a.v);
  _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(q));
  return _mm512_reduce_add_epi32(q);
}
inline Sums sums(int x) { return {_mm512_set1_epi32(x)}; }
inline Sums shifted(Sums a, int n) { return {_mm512_slli_epi32(a.v, (unsigned)n)}; }
inline V to_floats(Sums a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Weights load_weights(const uint8_t *p) { return {_mm512_loadu_si512(p)}; }
inline Weights low_bits(Weights w) { return {_mm512_and_si512(w.v, _mm512_set1_epi8(15))}; }
inline Weights high_bits(Weights w) { return {_mm512_and_si512(_mm512_srli_epi16(w.v, 4), _mm512_set1_epi8(15))}; }
#if defined(CW_VNNI)
inline Sums dot4(Sums a, Weights w, int32_t x) { return {_mm512_dpbusd_epi32(a.v, w.v, _mm512_set1_epi32(x))}; }
inline Sums dot8(Sums a, Weights w, int32_t x) { return dot4(a, w, x); }
#else
// The sums of two products of 4 and 8 bits fit 16 bits, those of 8 and 8 do not: bytes go as two halves.
inline __m512i pairs(__m512i w, int32_t x) {
  return _mm512_madd_epi16(_mm512_maddubs_epi16(w, _mm512_set1_epi32(x)), _mm512_set1_epi16(1));
}
inline Sums dot4(Sums a, Weights w, int32_t x) { return {_mm512_add_epi32(a.v, pairs(w.v, x))}; }
inline Sums dot8(Sums a, Weights w, int32_t x) {
  return dot4({_mm512_add_epi32(a.v, _mm512_slli_epi32(pairs(high_bits(w).v, x), 4))}, low_bits(w), x);
}
#endif
constexpr int BYTE_OFFSET = 128;  // stored bytes are unsigned: weight + 128

#elif defined(CW_AVX2)

struct V { __m256 a, b; };
struct Sums { __m256i a, b; };
struct Weights { __m256i a, b; };
constexpr int TILE_ROWS = 2, ATTEND_ROWS = 2, ATTEND_WIDTH = 2;

inline V load(const float *p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float *p, V x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
inline V all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline V operator+(V x, V y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline V operator-(V x, V y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline V operator*(V x, V y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline V operator/(V x, V y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline V fma(V x, V y, V z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline V max(V x, V y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline V min(V x, V y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline V absolute(V x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline V nearest(V x) {
  constexpr int how = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, how), _mm256_round_ps(x.b, how)};
}
inline __m256 scaled_unless_below_8(__m256 x, __m256 least, __m256 p, __m256 n) {
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_and_ps(_mm256_cmp_ps(x, least, _CMP_NLT_UQ), _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}
inline V scaled_unless_below(V x, V least, V p, V n) {
  return {scaled_unless_below_8(x.a, least.a, p.a, n.a), scaled_unless_below_8(x.b, least.b, p.b, n.b)};
}
inline float sum(V x) {
  const __m256 h = _mm256_add_ps(x.a, x.b);
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
inline float largest(V x) {
  const __m256 h = _mm256_max_ps(x.a, x.b);
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
inline V from_half(const uint16_t *p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
inline void to_half(uint16_t *p, V x) {
  constexpr int how = _MM_FROUND_TO_NEAREST_INT;
  _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x.a, how));
  _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(x.b, how));
}
inline __m256 from_bfloat_8(const uint16_t *p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
inline V from_bfloat(const uint16_t *p) { return {from_bfloat_8(p), from_bfloat_8(p + 8)}; }
struct Pairs { __m256i a, b; };
inline Pairs load_pairs(const int8_t *p) {
  return {_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)), _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(p + 16)))};
}
inline Sums dot_pairs(Sums s, Pairs w, int32_t two) {
  const __m256i x = _mm256_set1_epi32(two);
  return {_mm256_add_epi32(s.a, _mm256_madd_epi16(w.a, x)), _mm256_add_epi32(s.b, _mm256_madd_epi16(w.b, x))};
}
inline void store_shorts(int16_t *p, V x) {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
  _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(words, 0xD8));
}
inline int store_bytes(int8_t *p, V x) {
  const __m256i a = _mm256_cvtps_epi32(x.a), b = _mm256_cvtps_epi32(x.b);
  __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8);
  const __m128i low = _mm256_castsi256_si128(words), high = _mm256_extracti128_si256(words, 1);
  _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(low, high));
  const __m256i s = _mm256_add_epi32(a, b);
  __m128i q = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
  q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 0xB1)));
}
inline Sums sums(int x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline Sums shifted(Sums s, int n) { return {_mm256_slli_epi32(s.a, n), _mm256_slli_epi32(s.b, n)}; }
inline V to_floats(Sums x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline Weights load_weights(const uint8_t *p) {
  return {_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 32))};
}
inline Weights low_bits(Weights w) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(w.a, mask), _mm256_and_si256(w.b, mask)};
}
inline Weights high_bits(Weights w) { return low_bits({_mm256_srli_epi16(w.a, 4), _mm256_srli_epi16(w.b, 4)}); }
// The sums of two products of 4 and 8 bits fit 16 bits, those of 8 and 8 do not: bytes go as two halves.
inline __m256i pairs(__m256i w, __m256i x) { return _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)); }
inline Sums dot4(Sums s, Weights w, int32_t x) {
  const __m256i xs = _mm256_set1_epi32(x);
  return {_mm256_add_epi32(s.a, pairs(w.a, xs)), _mm256_add_epi32(s.b, pairs(w.b, xs))};
}
inline Sums dot8(Sums s, Weights w, int32_t x) {
  const __m256i xs = _mm256_set1_epi32(x);
  const Weights high = high_bits(w);
  s.a = _mm256_add_epi32(s.a, _mm256_slli_epi32(pairs(high.a, xs), 4));
  s.b = _mm256_add_epi32(s.b, _mm256_slli_epi32(pairs(high.b, xs), 4));
  return dot4(s, low_bits(w), x);
}
constexpr int BYTE_OFFSET = 128;

#elif defined(CW_NEON)

struct V { float32x4_t v[4]; };
struct Sums { int32x4_t v[4]; };
struct Weights { uint8x16_t v[4]; };
constexpr int TILE_ROWS = 4, ATTEND_ROWS = 3, ATTEND_WIDTH = 1;

#define CW_EACH for (int i = 0; i < 4; i++)
inline V load(const float *p) { V r; CW_EACH r.v[i] = vld1q_f32(p + 4 * i); return r; }
inline void store(float *p, V a) { CW_EACH vst1q_f32(p + 4 * i, a.v[i]); }
inline V all(float x) { V r; CW_EACH r.v[i] = vdupq_n_f32(x); return r; }
inline V operator+(V a, V b) { CW_EACH a.v[i] = vaddq_f32(a.v[i], b.v[i]); return a; }
inline V operator-(V a, V b) { CW_EACH a.v[i] = vsubq_f32(a.v[i], b.v[i]); return a; }
inline V operator*(V a, V b) { CW_EACH a.v[i] = vmulq_f32(a.v[i], b.v[i]); return a; }
inline V operator/(V a, V b) { CW_EACH a.v[i] = vdivq_f32(a.v[i], b.v[i]); return a; }
inline V fma(V a, V b, V c) { CW_EACH c.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i]); return c; }
inline V max(V a, V b) { CW_EACH a.v[i] = vmaxq_f32(a.v[i], b.v[i]); return a; }
inline V min(V a, V b) { CW_EACH a.v[i] = vminq_f32(a.v[i], b.v[i]); return a; }
inline V absolute(V a) { CW_EACH a.v[i] = vabsq_f32(a.v[i]); return a; }
inline V nearest(V a) { CW_EACH a.v[i] = vrndnq_f32(a.v[i]); return a; }
inline V scaled_unless_below(V x, V least, V p, V n) {
  CW_EACH {
    const float32x4_t power = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v[i]), vdupq_n_s32(127)), 23));
    p.v[i] = vbslq_f32(vcltq_f32(x.v[i], least.v[i]), vdupq_n_f32(0), vmulq_f32(p.v[i], power));
  }
  return p;
}
inline float sum(V a) { return vaddvq_f32(vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]))); }
inline float largest(V a) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[2]), vmaxq_f32(a.v[1], a.v[3]))); }
inline V from_half(const uint16_t *p) { V r; CW_EACH r.v[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); return r; }
inline void to_half(uint16_t *p, V a) { CW_EACH vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i]))); }
inline V from_bfloat(const uint16_t *p) {
  V r;
  CW_EACH r.v[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16));
  return r;
}
struct Pairs { int16x8_t v[4]; };
inline Pairs load_pairs(const int8_t *p) { Pairs r; CW_EACH r.v[i] = vmovl_s8(vld1_s8(p + 8 * i)); return r; }
inline Sums dot_pairs(Sums a, Pairs w, int32_t two) {
  const int16x4_t x = vreinterpret_s16_s32(vdup_n_s32(two));
  CW_EACH a.v[i] = vaddq_s32(a.v[i], vpaddq_s32(vmull_s16(vget_low_s16(w.v[i]), x), vmull_s16(vget_high_s16(w.v[i]), x)));
  return a;
}
inline void store_shorts(int16_t *p, V a) { CW_EACH vst1_s16(p + 4 * i, vqmovn_s32(vcvtnq_s32_f32(a.v[i]))); }
inline int store_bytes(int8_t *p, V a) {
  int total = 0;
  CW_EACH {
    int32_t q[4];
    const int32x4_t rounded = vcvtnq_s32_f32(a.v[i]);
    vst1q_s32(q, rounded);
    for (int j = 0; j < 4; j++) p[4 * i + j] = (int8_t)q[j];
    total += vaddvq_s32(rounded);
  }
  return total;
}
inline Sums sums(int x) { Sums r; CW_EACH r.v[i] = vdupq_n_s32(x); return r; }
inline Sums shifted(Sums a, int n) { CW_EACH a.v[i] = vshlq_s32(a.v[i], vdupq_n_s32(n)); return a; }
inline V to_floats(Sums a) { V r; CW_EACH r.v[i] = vcvtq_f32_s32(a.v[i]); return r; }
inline Weights load_weights(const uint8_t *p) { Weights r; CW_EACH r.v[i] = vld1q_u8(p + 16 * i); return r; }
inline Weights low_bits(Weights w) { CW_EACH w.v[i] = vandq_u8(w.v[i], vdupq_n_u8(15)); return w; }
inline Weights high_bits(Weights w) { CW_EACH w.v[i] = vshrq_n_u8(w.v[i], 4); return w; }
inline Sums dot4(Sums a, Weights w, int32_t x) {
  const int8x16_t xs = vreinterpretq_s8_s32(vdupq_n_s32(x));
  CW_EACH a.v[i] = vdotq_s32(a.v[i], vreinterpretq_s8_u8(w.v[i]), xs);
  return a;
}
inline Sums dot8(Sums a, Weights w, int32_t x) {
  CW_EACH w.v[i] = veorq_u8(w.v[i], vdupq_n_u8(128));  // weight + 128 as an unsigned byte, to the weight as a signed one
  return dot4(a, w, x);
}
#undef CW_EACH
constexpr int BYTE_OFFSET = 0;

#else  // portable

struct V { float v[16]; };
struct Sums { int32_t v[16]; };
struct Weights { uint8_t v[64]; };
constexpr int TILE_ROWS = 1, ATTEND_ROWS = 1, ATTEND_WIDTH = 1;

#define CW_EACH for (int i = 0; i < 16; i++)
inline V load(const float *p) { V r; memcpy(r.v, p, 64); return r; }
inline void store(float *p, V a) { memcpy(p, a.v, 64); }
inline V all(float x) { V r; CW_EACH r.v[i] = x; return r; }
inline V operator+(V a, V b) { CW_EACH a.v[i] += b.v[i]; return a; }
inline V operator-(V a, V b) { CW_EACH a.v[i] -= b.v[i]; return a; }
inline V operator*(V a, V b) { CW_EACH a.v[i] *= b.v[i]; return a; }
inline V operator/(V a, V b) { CW_EACH a.v[i] /= b.v[i]; return a; }
inline V fma(V a, V b, V c) { CW_EACH c.v[i] = a.v[i] * b.v[i] + c.v[i]; return c; }
inline V max(V a, V b) { CW_EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }
inline V min(V a, V b) { CW_EACH a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return a; }
inline V absolute(V a) { CW_EACH a.v[i] = fabsf(a.v[i]); return a; }
inline V nearest(V a) { CW_EACH a.v[i] = nearbyintf(a.v[i]); return a; }
inline V scaled_unless_below(V x, V least, V p, V n) {
  CW_EACH {
    if (x.v[i] < least.v[i]) {
      p.v[i] = 0;
      continue;
    }
    const uint32_t bits = (uint32_t)((int32_t)n.v[i] + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    p.v[i] *= power;
  }
  return p;
}
inline float sum(V a) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++) a.v[i] += a.v[i + half];
  return a.v[0];
}
inline float largest(V a) {
  float m = a.v[0];
  CW_EACH m = a.v[i] > m ? a.v[i] : m;
  return m;
}
inline V from_half(const uint16_t *p) { V r; CW_EACH r.v[i] = half_to_float(p[i]); return r; }
inline void to_half(uint16_t *p, V a) { CW_EACH p[i] = float_to_half(a.v[i]); }
inline V from_bfloat(const uint16_t *p) {
  V r;
  CW_EACH {
    const uint32_t bits = (uint32_t)p[i] << 16;
    memcpy(&r.v[i], &bits, 4);
  }
  return r;
}
struct Pairs { int8_t v[32]; };
inline Pairs load_pairs(const int8_t *p) { Pairs r; memcpy(r.v, p, 32); return r; }
inline Sums dot_pairs(Sums a, Pairs w, int32_t two) {
  int16_t x[2];
  memcpy(x, &two, 4);
  CW_EACH a.v[i] += w.v[2 * i] * x[0] + w.v[2 * i + 1] * x[1];
  return a;
}
inline void store_shorts(int16_t *p, V a) { CW_EACH p[i] = (int16_t)nearbyintf(a.v[i]); }
inline int store_bytes(int8_t *p, V a) {
  int total = 0;
  CW_EACH {
    p[i] = (int8_t)nearbyintf(a.v[i]);
    total += p[i];
  }
  return total;
}
inline Sums sums(int x) { Sums r; CW_EACH r.v[i] = x; return r; }
inline Sums shifted(Sums a, int n) { CW_EACH a.v[i] *= 1 << n; return a; }
inline V to_floats(Sums a) { V r; CW_EACH r.v[i] = (float)a.v[i]; return r; }
inline Weights load_weights(const uint8_t *p) { Weights r; memcpy(r.v, p, 64); return r; }
inline Weights low_bits(Weights w) { for (int i = 0; i < 64; i++) w.v[i] &= 15; return w; }
inline Weights high_bits(Weights w) { for (int i = 0; i < 64; i++) w.v[i] >>= 4; return w; }
inline Sums dot4(Sums a, Weights w, int32_t x) {
  int8_t xs[4];
  memcpy(xs, &x, 4);
  CW_EACH for (int j = 0; j < 4; j++) a.v[i] += w.v[4 * i + j] * xs[j];
  return a;
}
inline Sums dot8(Sums a, Weights w, int32_t x) { return dot4(a, w, x); }
#undef CW_EACH
constexpr int BYTE_OFFSET = 128;

#endif
