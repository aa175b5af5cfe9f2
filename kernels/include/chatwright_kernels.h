// The C ABI of the CPU kernels: a model is a flat list of operations, a step runs the list over the new tokens of many sequences.
//
// Nothing here knows a model family. Python compiles a configuration into operations with pointers to packed weights and runs them
// through ctypes; all memory but the scratch of `cw_engine` belongs to the caller and must outlive the engine or the call.
//
// Each result depends on its own token and sequence alone: sums go over blocks of 32 and over positions in a fixed order, never by
// batch, chunk or thread. (On one instruction set; two sets may differ in rounding.)
#pragma once
#include <stdint.h>

#if defined(__GNUC__)
#define CW_API extern "C" __attribute__((visibility("default")))
#else
#define CW_API extern "C" __declspec(dllexport)
#endif

// Raise it with every change of this file's structures, operations or weight layouts.
#define CW_ABI 2

enum { CW_BLOCK_TOKENS = 16 };  // tokens of a block of the KV cache

// Packed weights: panels of 16 rows (outputs) side by side; quantised ones in groups of 32 columns (inputs).
enum cw_format {
  CW_F32 = 0,   // floats
  CW_BF16 = 1,  // bfloat16, widened
  CW_I8 = 2,    // q * d, d float16
  CW_I4 = 3,    // (q - 8) * d, d float16
  CW_I4M = 4,   // q * d + m, both float16
  CW_I4MF = 5,  // q * d + m, both float32
};

// What weights are packed from: rows of floats, or rows of GGUF blocks of 32, which stay exactly what they are.
// (Q4_K: eight blocks of 32 share 144 bytes.)
enum cw_source { CW_FROM_F32 = 0, CW_FROM_Q8_0 = 1, CW_FROM_Q4_0 = 2, CW_FROM_Q4_1 = 3, CW_FROM_Q4_K = 4 };

// Keys and values of the cache. Eight bits: keys a scale per 32 channels, values one for a token's head; both scales are floats.
enum cw_cache { CW_CACHE_F16 = 0, CW_CACHE_F32 = 1, CW_CACHE_I8 = 2 };

enum cw_kind {
  CW_EMBED = 0,   // dst = row of weights * f0
  CW_ADD = 1,     // dst += table[position]
  CW_NORM = 2,    // dst = norm(src) * weights + bias; i0: 0 RMSNorm, 1 LayerNorm; f0: epsilon
  CW_MATMUL = 3,  // dst from column i0 on = weights src + bias
  CW_QKV = 4,     // q/k-norm and rotary in place; keys and values into the cache
  CW_ATTEND = 5,  // dst = attention of src's queries over the cache; i3: layer, i4: window or 0, f0: scale
  CW_ACT = 6,     // dst = act(src), or act(first half) * second half; i0: 0 gelu, 1 gelu by tanh, 2 silu, 3 relu
  CW_GATHER = 7,  // dst = the rows of src whose logits are wanted; from here on operations go over those rows
  CW_QUANT = 8,   // src into the quantised scratch, from where the next product takes it
};

enum cw_flags {
  CW_ACCUMULATE = 1,  // dst += instead of dst =
  CW_QUANTISE = 2,    // and dst into the quantised scratch
  CW_GATED = 4,
  CW_WANTED = 8,  // over the wanted rows
  CW_LOGITS = 16,  // dst is the step's logits
};

typedef struct cw_op {
  int32_t kind, flags;
  int32_t src, dst;   // buffers, or -1
  int32_t n_in, n_out;
  int32_t format;
  int32_t i0, i1, i2, i3, i4;  // CW_QKV and CW_ATTEND: query heads, key heads, head dimension, layer, window
  int32_t lora;       // index of this product among those that adapters can change, or -1
  float f0;
  const void *weights;
  const void *bias;   // CW_QKV: weight of the keys' norm (weights: the queries')
  const float *table; // CW_ADD: (positions, n_out); CW_QKV: (positions, head dimension), cosines then sines
} cw_op;

// One low-rank addition to rows `row .. row + n_out` of a product: dst += scale * b (a src).
typedef struct cw_lora {
  int32_t product, row, n_in, n_out, rank;
  float scale;
  const float *a;  // (rank, n_in)
  const float *b;  // (n_out, rank)
} cw_lora;

typedef struct cw_sequence {
  int32_t first, n_tokens;  // rows of the step
  int32_t position;         // of the first of them
  int32_t adapter;          // or -1
  const int32_t *blocks;    // of the cache, those of position 0 first
} cw_sequence;

typedef struct cw_step {
  int32_t n_tokens, n_sequences, n_wanted, logits_stride;
  const int32_t *ids;        // (n_tokens,)
  const int32_t *positions;  // (n_tokens,)
  const cw_sequence *sequences;
  const int32_t *wanted;     // (n_wanted,) rows
  float *logits;             // (n_wanted, logits_stride), or null: no head
  float *hidden;             // (n_wanted, d_model), or null: the head's input
} cw_step;

typedef struct cw_shape {
  int32_t n_ops, n_buffers, max_tokens, n_layers, n_kv_heads, head_dim, n_cache_blocks, n_threads, cache;
  const cw_op *ops;
  const int32_t *widths;  // (n_buffers,) floats a row
  void *keys, *values;    // (blocks, layers, kv heads) of cw_cache_bytes each; what is not written yet must be finite
} cw_shape;

typedef struct cw_engine cw_engine;

CW_API int cw_abi(void);
// Instruction sets, best first: "avx512vnni", "avx512", "avx2", "neon", "portable"; null past the end.
CW_API const char *cw_isa_name(int index);
// Whether it is in this library and this processor has it.
CW_API int cw_isa_usable(int index);
// Bytes of `rows` x `columns` packed.
CW_API int64_t cw_packed_bytes(int format, int64_t rows, int64_t columns);
// 0, or 1 where that source does not become that format. Rows lie `row_bytes` apart.
CW_API int cw_pack(int format, int source, const void *from, int64_t row_bytes, int64_t rows, int64_t columns, void *packed);
CW_API void cw_unpack(int format, const void *packed, int64_t rows, int64_t columns, float *to);
// Bytes of a block of one layer and head: of its keys, or of its values.
CW_API int64_t cw_cache_bytes(int cache, int head_dim, int values);
// Copies the operations and widths. Null where memory is short or an operation is not known.
CW_API cw_engine *cw_create(const cw_shape *shape, int isa);
CW_API void cw_destroy(cw_engine *engine);
// Gives adapter `index` its additions (copied; the matrices are not), or takes them away (n = 0). Not during a step.
CW_API int cw_set_adapter(cw_engine *engine, int index, const cw_lora *parts, int n);
// 0, or 1 where the step does not fit the engine's shape.
CW_API int cw_run(cw_engine *engine, const cw_step *step);
// Weights to draw a token by: exp((logits - the largest) / temperature), 0 where that is below e^-87, and the sum of each run of
// CW_RUN of them (the last may be shorter).
enum { CW_RUN = 256 };
CW_API void cw_weigh(int isa, const float *logits, int64_t n, float temperature, float *weights, double *runs);
// Nanoseconds of each operation since the last call; (n_ops,). Counting starts with the first call.
CW_API void cw_profile(cw_engine *engine, int64_t *nanoseconds);
