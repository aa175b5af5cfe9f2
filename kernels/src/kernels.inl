// The kernels, written once over simd.h. Included by each isa_*.cpp inside its namespace.
//
// A row is a token. Whatever is computed for a row comes out the same in every tile, item and step: the loops below never sum across
// rows, and within a row always in the same order.

// exp, to 2 ulp; exactly 1 at 0 and exactly 0 below -87 (Cody & Waite's reduction, a polynomial of degree 6).
inline V exp(V x) {
  const V bounded = min(x, all(88.0f));
  const V n = nearest(bounded * all(1.44269504f));
  const V r = fma(n, all(-1.42860677e-6f), fma(n, all(-0.693145752f), bounded));
  V p = fma(r, all(1.0f / 720), all(1.0f / 120));
  p = fma(p, r, all(1.0f / 24));
  p = fma(p, r, all(1.0f / 6));
  p = fma(p, r, all(0.5f));
  p = fma(p, r, all(1.0f));
  p = fma(p, r, all(1.0f));
  return scaled_unless_below(x, all(-87.0f), p, n);
}

inline float exp1(float x) {
  float lanes[16];
  store(lanes, exp(all(x)));
  return lanes[0];
}

// ---- rows -----------------------------------------------------------------------------------------------------------------------

// A group of 32 as bytes and their scale; the bytes' sum.
inline int quantise_group(const float *x, int8_t *q, float *scale) {
  const V a = load(x), b = load(x + 16);
  const float most = largest(max(absolute(a), absolute(b)));
  const V inverse = all(most > 0 ? 127.0f / most : 0.0f);
  *scale = most / 127.0f;
  const int low = store_bytes(q, a * inverse);
  return low + store_bytes(q + 16, b * inverse);
}

static void quantise_row(Run &run, const float *x, int n, int row) {
  int8_t *q = run.bytes + (int64_t)row * run.quantised_width;
  const int64_t first = (int64_t)row * (run.quantised_width / GROUP);
  for (int g = 0; g < (n + GROUP - 1) / GROUP; g++) {  // rows are padded with zeros to whole groups
    float *scale = run.scales + first + g;
    const int total = quantise_group(x + g * GROUP, q + g * GROUP, scale);
    run.scaled_sums[first + g] = *scale * (float)total;
    run.byte_sums[first + g] = -total;  // what an offset of the weights has to be taken back with
  }
}

static void norm_row(const cw_op &op, const float *x, float *y) {
  const int n = op.n_out, whole = n & ~15;
  const float *weight = (const float *)op.weights, *bias = (const float *)op.bias;
  float mean = 0;
  if (op.i0 == 1) {
    V total = all(0.0f);
    for (int i = 0; i < whole; i += 16) total = total + load(x + i);
    mean = sum(total);
    for (int i = whole; i < n; i++) mean += x[i];
    mean /= (float)n;
  }
  V squares = all(0.0f);
  for (int i = 0; i < whole; i += 16) {
    const V d = load(x + i) - all(mean);
    squares = fma(d, d, squares);
  }
  float square = sum(squares);
  for (int i = whole; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
  const float scale = 1.0f / sqrtf(square / (float)n + op.f0);
  const bool accumulate = op.flags & CW_ACCUMULATE;
  int i = 0;
  for (; i < whole; i += 16) {
    V v = (load(x + i) - all(mean)) * all(scale) * load(weight + i);
    if (bias) v = v + load(bias + i);
    store(y + i, accumulate ? load(y + i) + v : v);
  }
  for (; i < n; i++) {
    float v = (x[i] - mean) * scale * weight[i];
    if (bias) v += bias[i];
    y[i] = accumulate ? y[i] + v : v;
  }
}

inline V activate(V x, int kind) {
  switch (kind) {
    case 0: {
      float lanes[16];
      store(lanes, x);
      for (float &lane : lanes) lane *= 0.5f * (1.0f + erff(lane * 0.70710678f));
      return load(lanes);
    }
    case 1: {  // x (1 + tanh u) / 2 = x / (1 + exp(-2u))
      const V u = x * fma(x * x, all(0.044715f), all(1.0f)) * all(-1.59576912f);
      return x / (all(1.0f) + exp(u));
    }
    case 2: return x / (all(1.0f) + exp(all(0.0f) - x));
    default: return max(x, all(0.0f));
  }
}

static void act_row(const cw_op &op, const float *x, float *y) {
  // Widths are padded to 32; act(0) = 0 for all four, and a gate's second half begins where the first ends, padded or not.
  const int n = op.n_out, whole = n & ~15;
  const float *other = x + n;
  const bool gated = op.flags & CW_GATED;
  int i = 0;
  for (; i < whole; i += 16) {
    const V v = activate(load(x + i), op.i0);
    store(y + i, gated ? v * load(other + i) : v);
  }
  if (i < n) {
    float lanes[16] = {0};
    memcpy(lanes, x + i, (size_t)(n - i) * 4);
    store(lanes, activate(load(lanes), op.i0));
    for (int j = 0; i + j < n; j++) y[i + j] = gated ? lanes[j] * other[i + j] : lanes[j];
  }
}

static void norm_head(float *x, const float *weight, int n, float epsilon) {
  float square = 0;
  const int whole = n & ~15;
  V squares = all(0.0f);
  for (int i = 0; i < whole; i += 16) squares = fma(load(x + i), load(x + i), squares);
  square = sum(squares);
  for (int i = whole; i < n; i++) square += x[i] * x[i];
  const float scale = 1.0f / sqrtf(square / (float)n + epsilon);
  for (int i = 0; i < n; i++) x[i] = x[i] * scale * weight[i];
}

static void rotate_head(float *x, const float *table, int n) {
  const int half = n / 2;
  int i = 0;
  for (; i + 16 <= half; i += 16) {
    const V a = load(x + i), b = load(x + half + i), c = load(table + i), s = load(table + half + i);
    store(x + i, a * c - b * s);
    store(x + half + i, b * c + a * s);
  }
  for (; i < half; i++) {
    const float a = x[i], b = x[half + i], c = table[i], s = table[half + i];
    x[i] = a * c - b * s;
    x[half + i] = b * c + a * s;
  }
}

// An infinity in the cache would turn the zero weight of a token that may not be seen into NaN.
inline float bounded(float x) { return x >= 65504.0f ? 65504.0f : x > -65504.0f ? x : -65504.0f; }  // NaN too
inline void to_cache(uint16_t *p, V x) { to_half(p, min(max(x, all(-65504.0f)), all(65504.0f))); }
inline void to_cache(float *p, V x) { store(p, x); }
inline V from_cache(const uint16_t *p) { return from_half(p); }
inline V from_cache(const float *p) { return load(p); }

static const cw_sequence &sequence_of(const cw_step &step, int row) {
  int low = 0, high = step.n_sequences - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (step.sequences[middle].first <= row) low = middle;
    else high = middle - 1;
  }
  return step.sequences[low];
}

// A token's keys and values of one head. Floats: keys (channels, tokens), values (tokens, channels).
template <class C>
static void write_cache(const Run &run, C *keys, C *values, const float *k, const float *v, int width, int slot) {
  for (int d = 0; d < run.key_width; d += 16) {
    float lanes[16] = {0};
    C column[16];
    const int n = width - d < 16 ? width - d : 16;
    memcpy(lanes, k + d, (size_t)n * 4);
    to_cache(column, load(lanes));
    for (int i = 0; i < 16; i++) keys[(d + i) * CW_BLOCK_TOKENS + slot] = column[i];
    memset(lanes, 0, sizeof lanes);
    memcpy(lanes, v + d, (size_t)n * 4);
    to_cache(values + slot * run.key_width + d, load(lanes));
  }
}

// Eight bits: keys lie as a panel of I8 weights, with a token for an output; values as (pairs of tokens, channels, 2), as
// `dot_pairs` takes them. Their scales follow.
static void write_cache(const Run &run, int8_t *keys, int8_t *values, const float *k, const float *v, int width, int slot) {
  float largest_value = 0;
  for (int i = 0; i < width; i++) largest_value = fabsf(v[i]) > largest_value ? fabsf(v[i]) : largest_value;
  largest_value = largest_value < 65504.0f ? largest_value : 65504.0f;  // see `to_cache`; also where it is NaN
  const float inverse = largest_value > 0 ? 127.0f / largest_value : 0.0f;
  ((float *)(values + run.key_width * CW_BLOCK_TOKENS))[slot] = largest_value / 127.0f;
  float *key_scales = (float *)(keys + run.key_width * CW_BLOCK_TOKENS);
  for (int g = 0; g * GROUP < run.key_width; g++) {
    float lanes[GROUP] = {0};
    int8_t bytes[GROUP];
    float scale;
    const int n = width - g * GROUP < GROUP ? width - g * GROUP : GROUP;
    for (int i = 0; i < n; i++) lanes[i] = bounded(k[g * GROUP + i]);
    quantise_group(lanes, bytes, &scale);
    key_scales[g * CW_BLOCK_TOKENS + slot] = scale;
    for (int i = 0; i < GROUP; i++) bytes[i] ^= -128;  // as unsigned bytes, 128 more
    for (int i = 0; i < GROUP; i += 4) memcpy(keys + (g * GROUP + i) * CW_BLOCK_TOKENS + slot * 4, bytes + i, 4);
    memset(lanes, 0, sizeof lanes);
    for (int i = 0; i < n; i++) lanes[i] = bounded(v[g * GROUP + i]);
    store_bytes(bytes, load(lanes) * all(inverse)), store_bytes(bytes + 16, load(lanes + 16) * all(inverse));
    int8_t *pair = values + (slot / 2 * run.key_width + g * GROUP) * 2 + slot % 2;
    for (int i = 0; i < GROUP; i++) pair[2 * i] = bytes[i];
  }
}

template <class C>
static C *in_cache(const Run &run, void *start, int64_t bytes, int32_t block, int layer, int group) {
  return (C *)((char *)start + (((int64_t)block * run.shape.n_layers + layer) * run.shape.n_kv_heads + group) * bytes);
}

template <class C>
static void qkv_row(Run &run, const cw_op &op, float *x, int row) {
  const int n_heads = op.i0, n_groups = op.i1, width = op.i2;
  const int position = run.step->positions[row];
  const float *table = op.table ? op.table + (int64_t)position * width : nullptr;
  for (int h = 0; h < n_heads + n_groups; h++) {
    float *head = x + h * width;
    const float *weight = (const float *)(h < n_heads ? op.weights : op.bias);
    if (weight) norm_head(head, weight, width, op.f0);
    if (table) rotate_head(head, table, width);
  }
  const int32_t block = sequence_of(*run.step, row).blocks[position / CW_BLOCK_TOKENS];
  for (int g = 0; g < n_groups; g++)
    write_cache(run, in_cache<C>(run, run.shape.keys, run.key_bytes, block, op.i3, g), in_cache<C>(run, run.shape.values, run.value_bytes, block, op.i3, g),
                x + (n_heads + g) * width, x + (n_heads + n_groups + g) * width, width, position % CW_BLOCK_TOKENS);
}

// ---- products ---------------------------------------------------------------------------------------------------------------------

// ROWS rows, from `row` on, with one panel: 16 outputs each.
template <int FORMAT, int ROWS>
inline void tile(const Run &run, const float *x, int x_stride, const uint8_t *panel, int n_groups, int row, V *out) {
  V total[ROWS];
  for (int m = 0; m < ROWS; m++) total[m] = all(0.0f);
  if constexpr (FORMAT == CW_F32 || FORMAT == CW_BF16) {
    const int n = n_groups * GROUP;
    for (int k = 0; k < n; k++) {
      const V w = FORMAT == CW_F32 ? load((const float *)panel + k * PANEL) : from_bfloat((const uint16_t *)panel + k * PANEL);
      for (int m = 0; m < ROWS; m++) total[m] = fma(w, all(x[(int64_t)(row + m) * x_stride + k]), total[m]);
    }
  } else {
    constexpr int group_bytes = FORMAT == CW_I8 ? 512 : 256;
    const uint8_t *scales = panel + (int64_t)n_groups * group_bytes;
    const int per_row = run.quantised_width / GROUP;
    const int8_t *q = run.bytes + (int64_t)row * run.quantised_width;
    const float *x_scales = run.scales + (int64_t)row * per_row, *x_sums = run.scaled_sums + (int64_t)row * per_row;
    const int32_t *x_totals = run.byte_sums + (int64_t)row * per_row;
    // Weights are streamed through once a step, and scales lie behind a panel's weights: the next panel is fetched while this one is
    // computed, by whoever comes to it first.
    constexpr int scale_bytes = FORMAT == CW_I4MF ? 128 : FORMAT == CW_I4M ? 64 : 32;
    const uint8_t *next = panel + panel_bytes(FORMAT, n_groups * GROUP);
    for (int g = 0; g < n_groups; g++) {
      for (int i = 0; i < group_bytes + scale_bytes; i += 64) __builtin_prefetch(next + (int64_t)g * (group_bytes + scale_bytes) + i);
      Sums acc[ROWS];
      for (int m = 0; m < ROWS; m++) {
        if constexpr (FORMAT == CW_I8 && BYTE_OFFSET) acc[m] = shifted(sums(x_totals[m * per_row + g]), 7);
        else if constexpr (FORMAT == CW_I4) acc[m] = shifted(sums(x_totals[m * per_row + g]), 3);
        else acc[m] = sums(0);
      }
      const int8_t *xg = q + g * GROUP;
      for (int c = 0; c < group_bytes / 64; c++) {
        const Weights w = load_weights(panel + (int64_t)g * group_bytes + c * 64);
        const Weights low = low_bits(w), high = high_bits(w);
        for (int m = 0; m < ROWS; m++) {
          // read from memory as they are broadcast: by way of an ordinary register it would cost two operations more
          const Four *four = (const Four *)(xg + (int64_t)m * run.quantised_width);
          if constexpr (FORMAT == CW_I8) {
            acc[m] = dot8(acc[m], w, four[c]);
          } else {
            acc[m] = dot4(acc[m], low, four[2 * c]);
            acc[m] = dot4(acc[m], high, four[2 * c + 1]);
          }
        }
      }
      V scale, minimum = all(0.0f);
      if constexpr (FORMAT == CW_I4MF) scale = load((const float *)scales + g * 32), minimum = load((const float *)scales + g * 32 + 16);
      else if constexpr (FORMAT == CW_I4M) scale = from_half((const uint16_t *)scales + g * 32), minimum = from_half((const uint16_t *)scales + g * 32 + 16);
      else scale = from_half((const uint16_t *)scales + g * 16);
      for (int m = 0; m < ROWS; m++) {
        total[m] = fma(to_floats(acc[m]), scale * all(x_scales[m * per_row + g]), total[m]);
        if constexpr (FORMAT == CW_I4M || FORMAT == CW_I4MF) total[m] = fma(minimum, all(x_sums[m * per_row + g]), total[m]);
      }
    }
  }
  for (int m = 0; m < ROWS; m++) out[m] = total[m];
}

constexpr int64_t BLOCK_BYTES = 1 << 18;

struct Target {
  float *y;
  int64_t stride;
  const float *bias;
  bool accumulate;
};

template <int FORMAT, int ROWS>
inline int tiles(const Run &run, const float *x, int x_stride, const uint8_t *panels, int64_t bytes, int n_groups, int row, int n_rows, int first, int last, const Target &to) {
  for (; row + ROWS <= n_rows; row += ROWS) {
    for (int p = first; p < last; p++) {
      V out[ROWS];
      tile<FORMAT, ROWS>(run, x, x_stride, panels + p * bytes, n_groups, row, out);
      for (int m = 0; m < ROWS; m++) {
        float *y = to.y + (row + m) * to.stride + p * PANEL;
        V v = out[m];
        if (to.bias) v = v + load(to.bias + p * PANEL);
        store(y, to.accumulate ? load(y) + v : v);
      }
    }
  }
  return row;
}

template <int FORMAT>
static void product(const Run &run, const cw_op &op, const float *x, int x_stride, int n_rows, int first, int last, const Target &to) {
  const int n_groups = (int)groups_of(op.n_in);
  const int64_t bytes = panel_bytes(FORMAT, op.n_in);
  const uint8_t *panels = (const uint8_t *)op.weights;
  // A tile's rows stay in the first cache while the panels of a block go by, and a block in the second while the tiles do.
  const int block = n_rows > TILE_ROWS && BLOCK_BYTES / bytes > 0 ? (int)(BLOCK_BYTES / bytes) : last - first;
  for (int p = first; p < last; p += block) {
    const int end = p + block < last ? p + block : last;
    int row = tiles<FORMAT, TILE_ROWS>(run, x, x_stride, panels, bytes, n_groups, 0, n_rows, p, end, to);
    if constexpr (TILE_ROWS > 4) row = tiles<FORMAT, 4>(run, x, x_stride, panels, bytes, n_groups, row, n_rows, p, end, to);
    if constexpr (TILE_ROWS > 2) row = tiles<FORMAT, 2>(run, x, x_stride, panels, bytes, n_groups, row, n_rows, p, end, to);
    if constexpr (TILE_ROWS > 1) tiles<FORMAT, 1>(run, x, x_stride, panels, bytes, n_groups, row, n_rows, p, end, to);
  }
}

static void matmul(const Run &run, const cw_op &op, int n_rows, int first, int last, const Target &to) {
  const float *x = run.buffers[(size_t)op.src];
  const int stride = run.widths[(size_t)op.src];
  switch (op.format) {
    case CW_F32: return product<CW_F32>(run, op, x, stride, n_rows, first, last, to);
    case CW_BF16: return product<CW_BF16>(run, op, x, stride, n_rows, first, last, to);
    case CW_I8: return product<CW_I8>(run, op, x, stride, n_rows, first, last, to);
    case CW_I4: return product<CW_I4>(run, op, x, stride, n_rows, first, last, to);
    case CW_I4M: return product<CW_I4M>(run, op, x, stride, n_rows, first, last, to);
    default: return product<CW_I4MF>(run, op, x, stride, n_rows, first, last, to);
  }
}

// What the row's adapter adds to a product.
static void low_rank_row(const Run &run, const cw_op &op, const float *x, float *y, int row) {
  const int adapter = run.adapter_of_row[(size_t)row];
  if (adapter < 0) return;
  for (const cw_lora &part : run.adapters[(size_t)adapter]) {
    if (part.product != op.lora) continue;
    const int whole_in = part.n_in & ~15, whole_out = part.n_out & ~15;
    float *to = y + part.row;
    for (int r = 0; r < part.rank; r++) {
      const float *a = part.a + (int64_t)r * part.n_in, *b = part.b + (int64_t)r * part.n_out;
      V total = all(0.0f);
      for (int i = 0; i < whole_in; i += 16) total = fma(load(a + i), load(x + i), total);
      float inner = sum(total);
      for (int i = whole_in; i < part.n_in; i++) inner += a[i] * x[i];
      inner *= part.scale;
      for (int i = 0; i < whole_out; i += 16) store(to + i, fma(load(b + i), all(inner), load(to + i)));
      for (int i = whole_out; i < part.n_out; i++) to[i] += b[i] * inner;
    }
  }
}

// ---- attention --------------------------------------------------------------------------------------------------------------------

// Scores of BLOCKS blocks of keys. Few rows have few sums under way, which would wait for each other: they take several blocks at once.
template <int ROWS, int BLOCKS, class C>
inline void scores(const AttendScratch &scratch, int row, int width, const C *const *keys, float *out) {
  const float *q = scratch.queries + row * width;
  V s[ROWS][BLOCKS];
  for (int r = 0; r < ROWS; r++)
    for (int b = 0; b < BLOCKS; b++) s[r][b] = all(0.0f);
  for (int d = 0; d < width; d++)
    for (int b = 0; b < BLOCKS; b++) {
      const V k = from_cache(keys[b] + d * CW_BLOCK_TOKENS);
      for (int r = 0; r < ROWS; r++) s[r][b] = fma(k, all(q[r * width + d]), s[r][b]);
    }
  for (int r = 0; r < ROWS; r++)
    for (int b = 0; b < BLOCKS; b++) store(out + r * SHARE + b * CW_BLOCK_TOKENS, s[r][b]);
}

template <int ROWS, int BLOCKS>
inline void scores(const AttendScratch &scratch, int row, int width, const int8_t *const *keys, float *out) {
  const int n_groups = width / GROUP;
  const int8_t *q = scratch.bytes + row * width;
  V s[ROWS][BLOCKS];
  for (int r = 0; r < ROWS; r++)
    for (int b = 0; b < BLOCKS; b++) s[r][b] = all(0.0f);
  for (int g = 0; g < n_groups; g++) {
    Sums acc[ROWS][BLOCKS];
    for (int r = 0; r < ROWS; r++)
      for (int b = 0; b < BLOCKS; b++) acc[r][b] = BYTE_OFFSET ? shifted(sums(scratch.totals[(row + r) * n_groups + g]), 7) : sums(0);
    for (int c = 0; c < GROUP / 4; c++)
      for (int b = 0; b < BLOCKS; b++) {
        const Weights w = load_weights((const uint8_t *)keys[b] + (g * (GROUP / 4) + c) * 64);
        for (int r = 0; r < ROWS; r++) acc[r][b] = dot8(acc[r][b], w, ((const Four *)(q + r * width + g * GROUP))[c]);
      }
    for (int b = 0; b < BLOCKS; b++) {
      const V scale = load((const float *)(keys[b] + width * CW_BLOCK_TOKENS) + g * CW_BLOCK_TOKENS);
      for (int r = 0; r < ROWS; r++) s[r][b] = fma(to_floats(acc[r][b]), scale * all(scratch.scales[(row + r) * n_groups + g]), s[r][b]);
    }
  }
  for (int r = 0; r < ROWS; r++)
    for (int b = 0; b < BLOCKS; b++) store(out + r * SHARE + b * CW_BLOCK_TOKENS, s[r][b]);
}

// out (rows, width) from column `d` on, WIDE x 16 columns, += weights (rows, n) values (n, width)
template <int ROWS, int WIDE, class C>
inline void weighted(const float *weights, const C *const *blocks, int first, int last, int width, int d, float *out) {
  V o[ROWS][WIDE];
  for (int r = 0; r < ROWS; r++)
    for (int w = 0; w < WIDE; w++) o[r][w] = all(0.0f);
  for (int j = first; j < last; j++) {
    const C *value = blocks[j / CW_BLOCK_TOKENS] + (j % CW_BLOCK_TOKENS) * width + d;
    V v[WIDE];
    for (int w = 0; w < WIDE; w++) v[w] = from_cache(value + w * 16);
    for (int r = 0; r < ROWS; r++) {
      const V p = all(weights[r * SHARE + j]);
      for (int w = 0; w < WIDE; w++) o[r][w] = fma(p, v[w], o[r][w]);
    }
  }
  for (int r = 0; r < ROWS; r++)
    for (int w = 0; w < WIDE; w++) store(out + (int64_t)r * width + d + w * 16, o[r][w]);
}

// The same with values of eight bits and weights of fifteen, exact; `factors`: what the sum of each row is worth.
template <int ROWS, int WIDE>
inline void weighted(const int16_t *weights, const float *factors, const int8_t *const *blocks, int first_block, int last_block, int width, int d, float *out) {
  Sums o[ROWS][WIDE];
  for (int r = 0; r < ROWS; r++)
    for (int w = 0; w < WIDE; w++) o[r][w] = sums(0);
  for (int b = first_block; b < last_block; b++)
    for (int j = 0; j < CW_BLOCK_TOKENS / 2; j++) {
      Pairs v[WIDE];
      for (int w = 0; w < WIDE; w++) v[w] = load_pairs(blocks[b] + (j * width + d + w * 16) * 2);
      for (int r = 0; r < ROWS; r++) {
        const int32_t two = ((const Four *)(weights + r * SHARE + b * CW_BLOCK_TOKENS))[j];
        for (int w = 0; w < WIDE; w++) o[r][w] = dot_pairs(o[r][w], v[w], two);
      }
    }
  for (int r = 0; r < ROWS; r++)
    for (int w = 0; w < WIDE; w++) store(out + (int64_t)r * width + d + w * 16, to_floats(o[r][w]) * all(factors[r]));
}

// A row's weights as fifteen bits; what one of these is worth.
inline float to_shorts(const float *weights, float most, int first_block, int last_block, int16_t *to) {
  const V inverse = all(most > 0 ? 32767.0f / most : 0.0f);
  for (int b = first_block; b < last_block; b++) store_shorts(to + b * CW_BLOCK_TOKENS, load(weights + b * CW_BLOCK_TOKENS) * inverse);
  return most / 32767.0f;
}

template <int ROWS, class C>
inline void share_rows(const AttendScratch &scratch, int row, int width, const C *const *keys, const C *const *values, int first, int last,
                       const int *from, const int *until, float *maxima, float *sums_) {
  // first .. last: positions of this share that any of the tile's rows sees; from .. until: those that each row sees.
  const int first_block = first / CW_BLOCK_TOKENS, last_block = (last + CW_BLOCK_TOKENS - 1) / CW_BLOCK_TOKENS;
  const int block_bytes = width * CW_BLOCK_TOKENS * (int)sizeof(C);
  float *p = scratch.weights + row * SHARE, *out = scratch.share + row * width;
  int16_t *shorts = scratch.shorts + row * SHARE;
  float factors[ROWS];
  constexpr int at_once = ROWS * 4 <= 2 * ATTEND_ROWS ? 4 : ROWS * 2 <= 2 * ATTEND_ROWS ? 2 : 1;
  for (int b = first_block; b < last_block;) {
    const int n = b + at_once <= last_block ? at_once : 1;
    // Blocks lie anywhere: nobody but us knows which comes next.
    for (int j = b; j < b + n; j++)
      for (int i = 0; i < block_bytes; i += 64) {
        if (j + n < last_block) __builtin_prefetch((const char *)keys[j + n] + i);
        __builtin_prefetch((const char *)values[j] + i, 0, 2);
      }
    if (n > 1) scores<ROWS, at_once>(scratch, row, width, keys + b, p + b * CW_BLOCK_TOKENS);
    else scores<ROWS, 1>(scratch, row, width, keys + b, p + b * CW_BLOCK_TOKENS);
    b += n;
  }
  for (int r = 0; r < ROWS; r++) {
    float *seen = p + r * SHARE;
    for (int j = first_block * CW_BLOCK_TOKENS; j < from[r]; j++) seen[j] = -INFINITY;
    for (int j = until[r] < 0 ? 0 : until[r]; j < last_block * CW_BLOCK_TOKENS; j++) seen[j] = -INFINITY;
    V most = all(-INFINITY);
    for (int b = first_block; b < last_block; b++) most = max(most, load(seen + b * CW_BLOCK_TOKENS));
    maxima[r] = largest(most);
    const V shift = all(maxima[r] == -INFINITY ? 0.0f : maxima[r]);
    V total = all(0.0f), most_scaled = all(0.0f);
    for (int b = first_block; b < last_block; b++) {
      V e = exp(load(seen + b * CW_BLOCK_TOKENS) - shift);
      total = total + e;
      if constexpr (sizeof(C) == 1) {
        e = e * load((const float *)(values[b] + width * CW_BLOCK_TOKENS));
        most_scaled = max(most_scaled, e);
      }
      store(seen + b * CW_BLOCK_TOKENS, e);
    }
    sums_[r] = sum(total);
    if constexpr (sizeof(C) == 1) factors[r] = to_shorts(seen, largest(most_scaled), first_block, last_block, shorts + r * SHARE);
  }
  int d = 0;
  if constexpr (sizeof(C) == 1) {
    for (; d + ATTEND_WIDTH * 16 <= width; d += ATTEND_WIDTH * 16) weighted<ROWS, ATTEND_WIDTH>(shorts, factors, values, first_block, last_block, width, d, out);
    for (; d < width; d += 16) weighted<ROWS, 1>(shorts, factors, values, first_block, last_block, width, d, out);
  } else {
    for (; d + ATTEND_WIDTH * 16 <= width; d += ATTEND_WIDTH * 16) weighted<ROWS, ATTEND_WIDTH>(p, values, first, last, width, d, out);
    for (; d < width; d += 16) weighted<ROWS, 1>(p, values, first, last, width, d, out);
  }
}

// Attention over one share: out (rows, width) not divided by its sum, and of each row the largest score and the sum.
template <class C>
static void share(const Run &run, const cw_op &op, const cw_sequence &s, int group, int index, const AttendScratch &scratch, int n_rows,
                  const int *from, const int *until, float *maxima, float *sums_) {
  const C *keys[SHARE / CW_BLOCK_TOKENS], *values[SHARE / CW_BLOCK_TOKENS];
  const int width = run.key_width, start = index * SHARE;
  int most = 0, least = SHARE, local_from[ATTEND_TILE], local_until[ATTEND_TILE];
  for (int r = 0; r < n_rows; r++) {
    local_from[r] = from[r] > start ? from[r] - start : 0;
    local_until[r] = until[r] - start < SHARE ? until[r] - start : SHARE;
    if (local_until[r] > local_from[r]) {
      most = local_until[r] > most ? local_until[r] : most;
      least = local_from[r] < least ? local_from[r] : least;
    } else {
      local_from[r] = SHARE, local_until[r] = 0;  // sees nothing of this share
    }
  }
  for (int b = least / CW_BLOCK_TOKENS; b * CW_BLOCK_TOKENS < most; b++) {
    const int32_t block = s.blocks[start / CW_BLOCK_TOKENS + b];
    keys[b] = in_cache<C>(run, run.shape.keys, run.key_bytes, block, op.i3, group);
    values[b] = in_cache<C>(run, run.shape.values, run.value_bytes, block, op.i3, group);
  }
  int r = 0;
#define CW_ROWS(n)                                                                                                             \
  for (; r + n <= n_rows; r += n)                                                                                              \
  share_rows<n>(scratch, r, width, keys, values, least, most, local_from + r, local_until + r, maxima + r, sums_ + r)
  if constexpr (ATTEND_ROWS > 4) CW_ROWS(6);
  if constexpr (ATTEND_ROWS > 2) CW_ROWS(3);
  if constexpr (ATTEND_ROWS > 1) CW_ROWS(2);
  CW_ROWS(1);
#undef CW_ROWS
}

// Adds a share to what the shares before it gave.
static void merge(float *out, float *most, float *total, const float *share_out, float share_most, float share_total, int width) {
  if (share_most == -INFINITY) return;
  const bool rises = share_most > *most;
  const float larger = rises ? share_most : *most;
  const float keep = rises ? exp1(*most - larger) : 1.0f, take = rises ? 1.0f : exp1(share_most - larger);
  for (int d = 0; d < width; d += 16) store(out + d, fma(load(share_out + d), all(take), load(out + d) * all(keep)));
  *total = *total * keep + share_total * take;
  *most = larger;
}

template <class C>
static void attend(Run &run, const cw_op &op, const AttendItem &item, int thread) {
  const cw_sequence &s = run.step->sequences[item.sequence];
  const int ratio = op.i0 / op.i1, width = run.key_width, n = item.n_rows;
  const AttendScratch &scratch = run.scratch[(size_t)thread];
  float *q = scratch.queries, *out = scratch.share, *merged = scratch.merged;
  float maxima[ATTEND_TILE], sums_[ATTEND_TILE], most[ATTEND_TILE], total[ATTEND_TILE];
  int from[ATTEND_TILE], until[ATTEND_TILE], first = INT32_MAX, last = 0;
  const float *x = run.buffers[(size_t)op.src];
  const int stride = run.widths[(size_t)op.src];
  for (int r = 0; r < n; r++) {
    const int token = (item.first_row + r) / ratio, head = item.group * ratio + (item.first_row + r) % ratio;
    const float *source = x + (int64_t)(s.first + token) * stride + head * op.i2;
    for (int d = 0; d < op.i2; d++) q[r * width + d] = source[d] * op.f0;
    for (int d = op.i2; d < width; d++) q[r * width + d] = 0;
    if constexpr (sizeof(C) == 1)
      for (int g = 0, i = r * (width / GROUP); g < width / GROUP; g++, i++)
        scratch.totals[i] = -quantise_group(q + r * width + g * GROUP, scratch.bytes + r * width + g * GROUP, scratch.scales + i);
    until[r] = s.position + token + 1;
    from[r] = op.i4 && until[r] > op.i4 ? until[r] - op.i4 : 0;
    first = from[r] < first ? from[r] : first;
    last = until[r] > last ? until[r] : last;
  }
  const int first_seen = first / SHARE;  // a window may leave the first shares out
  AttendSplit *split = item.split < 0 ? nullptr : &run.attend_splits[(size_t)item.split];
  if (split) {
    AttendScratch scratch_of_share = scratch;
    for (int index = item.first_share < first_seen ? first_seen : item.first_share; index < item.last_share; index++) {
      const int64_t place = split->first_partial + (int64_t)index * n;
      scratch_of_share.share = run.partial_out + place * width;
      share<C>(run, op, s, item.group, index, scratch_of_share, n, from, until, run.partial_max + place, run.partial_sum + place);
    }
    if (__atomic_sub_fetch(&split->n_left, 1, __ATOMIC_ACQ_REL)) return;
    split->n_left = split->n_items;  // for the next layer
  }
  memset(merged, 0, (size_t)(n * width) * 4);
  for (int r = 0; r < n; r++) most[r] = -INFINITY, total[r] = 0;
  for (int index = first_seen; index * SHARE < last; index++) {
    const int64_t place = split ? split->first_partial + (int64_t)index * n : 0;
    const float *share_out = split ? run.partial_out + place * width : out;
    const float *share_most = split ? run.partial_max + place : maxima, *share_total = split ? run.partial_sum + place : sums_;
    if (!split) share<C>(run, op, s, item.group, index, scratch, n, from, until, maxima, sums_);
    for (int r = 0; r < n; r++) merge(merged + r * width, &most[r], &total[r], share_out + r * width, share_most[r], share_total[r], width);
  }
  float *y = run.buffers[(size_t)op.dst];
  for (int r = 0; r < n; r++) {
    const int token = (item.first_row + r) / ratio, head = item.group * ratio + (item.first_row + r) % ratio;
    float *to = y + (int64_t)(s.first + token) * run.widths[(size_t)op.dst] + head * op.i2;
    for (int d = 0; d < op.i2; d++) to[d] = merged[r * width + d] / total[r];
  }
}

// Calls `f` with a value of the cache's type.
template <class F>
inline void with_cache(int cache, F f) {
  if (cache == CW_CACHE_I8) f(int8_t());
  else if (cache == CW_CACHE_F32) f(float());
  else f(uint16_t());
}

// ---- sampling ---------------------------------------------------------------------------------------------------------------------

static void weigh(const float *logits, int64_t n, float temperature, float *weights, double *runs) {
  const int64_t whole = n / 16 * 16;
  float last[16];
  for (int i = 0; i < 16; i++) last[i] = whole + i < n ? logits[whole + i] : -INFINITY;
  V most = load(last);
  for (int64_t i = 0; i < whole; i += 16) most = max(most, load(logits + i));
  const V largest_logit = all(largest(most)), inverse = all(1.0f / temperature);
  for (int64_t first = 0; first < n; first += CW_RUN, runs++) {
    V total = all(0.0f);
    const int64_t end = first + CW_RUN < whole ? first + CW_RUN : whole;
    for (int64_t i = first; i < end; i += 16) {
      const V weight = exp((load(logits + i) - largest_logit) * inverse);
      store(weights + i, weight);
      total = total + weight;
    }
    if (whole < n && first <= whole && whole < first + CW_RUN) {
      const V weight = exp((load(last) - largest_logit) * inverse);
      store(last, weight);
      memcpy(weights + whole, last, (size_t)(n - whole) * 4);
      total = total + weight;
    }
    *runs = sum(total);
  }
}

// ---- items ------------------------------------------------------------------------------------------------------------------------

static void run_item(Run &run, const Phase &phase, int item, int thread) {
  const cw_op &op = run.ops[(size_t)phase.op];
  const cw_step &step = *run.step;
  const int n_rows = op.flags & CW_WANTED ? step.n_wanted : step.n_tokens;
  const int first = item * phase.per_item;
  if (op.kind == CW_ATTEND) {
    for (int i = run.attend_bundles[(size_t)item]; i < run.attend_bundles[(size_t)item + 1]; i++)
      with_cache(run.shape.cache, [&](auto c) { attend<decltype(c)>(run, op, run.attend_items[(size_t)i], thread); });
    return;
  }
  if (op.kind == CW_MATMUL && phase.part == Phase::MAIN) {
    Target to{nullptr, 0, (const float *)op.bias, (op.flags & CW_ACCUMULATE) != 0};
    if (op.flags & CW_LOGITS) to.y = step.logits, to.stride = step.logits_stride;
    else to.y = run.buffers[(size_t)op.dst] + op.i0, to.stride = run.widths[(size_t)op.dst];
    const int n_panels = (int)panels_of(op.n_out);
    return matmul(run, op, n_rows, first, first + phase.per_item < n_panels ? first + phase.per_item : n_panels, to);
  }
  for (int row = first; row < first + phase.per_item && row < n_rows; row++) {
    const float *x = op.src >= 0 ? run.buffers[(size_t)op.src] + (int64_t)row * run.widths[(size_t)op.src] : nullptr;
    float *y = op.dst >= 0 ? run.buffers[(size_t)op.dst] + (int64_t)row * run.widths[(size_t)op.dst] : nullptr;
    switch (op.kind) {
      case CW_EMBED:
        unpack_row(op.format, op.weights, op.n_out, step.ids[row], y);
        if (op.f0 != 1.0f)
          for (int i = 0; i < op.n_out; i++) y[i] *= op.f0;
        break;
      case CW_ADD:
        for (int i = 0; i < op.n_out; i++) y[i] += op.table[(int64_t)step.positions[row] * op.n_out + i];
        break;
      case CW_NORM: norm_row(op, x, y); break;
      case CW_ACT: act_row(op, x, y); break;
      case CW_QKV: with_cache(run.shape.cache, [&](auto c) { qkv_row<decltype(c)>(run, op, y, row); }); break;
      case CW_QUANT: quantise_row(run, x, op.n_in, row); break;
      case CW_GATHER:
        memcpy(y, run.buffers[(size_t)op.src] + (int64_t)step.wanted[row] * run.widths[(size_t)op.src], (size_t)op.n_out * 4);
        break;
      case CW_MATMUL: low_rank_row(run, op, x, y, row); break;
    }
    if (op.flags & CW_QUANTISE) quantise_row(run, y, op.n_out, row);
  }
}
