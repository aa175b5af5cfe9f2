// Every instruction set of this processor against the portable one, which the Python tests compare with plain references: for
// processors on which no Python runs, such as an emulated one. Random layers of all formats, in steps of odd sizes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "chatwright_kernels.h"

namespace {

std::mt19937 generator(1);

std::vector<float> random_floats(size_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float &value : values) value = normal(generator);
  return values;
}

struct Model {
  static constexpr int VOCABULARY = 50, WIDTH = 72, HEADS = 6, GROUPS = 2, HEAD = 20, INNER = 100, POSITIONS = 600, BLOCKS = 40;
  std::vector<std::vector<uint8_t>> packed;
  std::vector<std::vector<float>> vectors;
  std::vector<cw_op> ops;
  std::vector<int32_t> widths{96, 96, 224, 128, 224, 128, 96};

  const void *matrix(int format, int rows, int columns) {
    std::vector<float> values = random_floats((size_t)(rows * columns));
    for (float &value : values) value /= std::sqrt((float)columns);
    packed.emplace_back((size_t)cw_packed_bytes(format, rows, columns) + 64);
    void *place = packed.back().data() + (64 - (uintptr_t)packed.back().data() % 64) % 64;
    if (cw_pack(format, CW_FROM_F32, values.data(), columns * 4, rows, columns, place)) abort();
    return place;
  }
  const float *vector(size_t n) {
    vectors.push_back(random_floats(n));
    vectors.back().resize(n + 16);
    return vectors.back().data();
  }
  cw_op &add(int kind, int flags = 0) {
    cw_op op{};
    op.kind = kind, op.flags = flags, op.src = op.dst = op.lora = -1;
    ops.push_back(op);
    return ops.back();
  }
  void product(int format, int src, int dst, int n_in, int n_out, int flags = 0) {
    if (format >= CW_I8) {
      cw_op &quantise = add(CW_QUANT);
      quantise.src = src, quantise.n_in = n_in;
    }
    cw_op &op = add(CW_MATMUL, flags);
    op.src = src, op.dst = dst, op.n_in = n_in, op.n_out = n_out, op.format = format, op.weights = matrix(format, n_out, n_in);
    op.bias = vector((size_t)n_out);
  }
  void norm(int src, int dst, int kind, int flags = 0) {
    cw_op &op = add(CW_NORM, flags);
    op.src = src, op.dst = dst, op.n_out = WIDTH, op.i0 = kind, op.f0 = 1e-5f;
    op.weights = vector(WIDTH), op.bias = vector(WIDTH);
  }

  explicit Model(int format) {
    cw_op &embed = add(CW_EMBED);
    embed.dst = 0, embed.n_out = WIDTH, embed.format = format, embed.weights = matrix(format, VOCABULARY, WIDTH), embed.f0 = 1.5f;
    for (int layer = 0; layer < 2; layer++) {
      norm(0, 1, layer);
      product(format, 1, 2, WIDTH, (HEADS + 2 * GROUPS) * HEAD);
      cw_op &qkv = add(CW_QKV);
      qkv.dst = 2, qkv.i0 = HEADS, qkv.i1 = GROUPS, qkv.i2 = HEAD, qkv.i3 = layer, qkv.f0 = 1e-5f;
      qkv.weights = vector(HEAD), qkv.bias = vector(HEAD), qkv.table = vector(POSITIONS * HEAD);
      cw_op &attend = add(CW_ATTEND);
      attend.src = 2, attend.dst = 3, attend.i0 = HEADS, attend.i1 = GROUPS, attend.i2 = HEAD, attend.i3 = layer;
      attend.i4 = layer ? 270 : 0, attend.f0 = 0.2f;
      product(format, 3, 0, HEADS * HEAD, WIDTH, CW_ACCUMULATE);
      norm(0, 1, 0);
      product(format, 1, 4, WIDTH, 2 * INNER);
      cw_op &act = add(CW_ACT, CW_GATED);
      act.src = 4, act.dst = 5, act.n_out = INNER, act.i0 = 1 + layer;
      product(format, 5, 0, INNER, WIDTH, CW_ACCUMULATE);
    }
    cw_op &gather = add(CW_GATHER, CW_WANTED);
    gather.src = 0, gather.dst = 6, gather.n_out = WIDTH;
    product(format, 6, -1, WIDTH, VOCABULARY, CW_WANTED | CW_LOGITS);
    ops[ops.size() - 1 - (format >= CW_I8)].flags |= CW_WANTED;
  }

  // The logits of a text of 530 tokens, computed in uneven chunks.
  std::vector<float> run(int isa, int cache, int n_threads, const std::vector<int> &chunks) {
    std::vector<uint8_t> keys((size_t)(BLOCKS * 2 * GROUPS * cw_cache_bytes(cache, HEAD, 0)));
    std::vector<uint8_t> values((size_t)(BLOCKS * 2 * GROUPS * cw_cache_bytes(cache, HEAD, 1)));
    cw_shape shape{};
    shape.n_ops = (int)ops.size(), shape.n_buffers = (int)widths.size(), shape.max_tokens = 530, shape.n_layers = 2;
    shape.n_kv_heads = GROUPS, shape.head_dim = HEAD, shape.n_cache_blocks = BLOCKS, shape.n_threads = n_threads, shape.cache = cache;
    shape.ops = ops.data(), shape.widths = widths.data(), shape.keys = keys.data(), shape.values = values.data();
    cw_engine *engine = cw_create(&shape, isa);
    if (!engine) abort();
    std::vector<int32_t> blocks(BLOCKS);
    for (int i = 0; i < BLOCKS; i++) blocks[(size_t)i] = (i * 7 + 3) % BLOCKS;
    std::vector<float> logits;
    int start = 0;
    for (int n : chunks) {
      std::vector<int32_t> ids, positions, wanted;
      for (int i = 0; i < n; i++) ids.push_back((start + i) * 31 % VOCABULARY), positions.push_back(start + i), wanted.push_back(i);
      std::vector<float> out((size_t)n * 64);
      cw_sequence sequence{0, n, start, -1, blocks.data()};
      cw_step step{n, 1, n, 64, ids.data(), positions.data(), &sequence, wanted.data(), out.data(), nullptr};
      if (cw_run(engine, &step)) abort();
      logits.insert(logits.end(), out.begin(), out.end());
      start += n;
    }
    cw_destroy(engine);
    return logits;
  }
};

}  // namespace

// With an argument: a few tokens only, for emulators.
int main(int argc, char **) {
  int n_isas = 0, failures = 0, portable = 0;
  while (cw_isa_name(n_isas)) portable = n_isas++;  // the last one
  const std::vector<int> whole{argc > 1 ? 23 : 530};
  const std::vector<int> uneven = argc > 1 ? std::vector<int>{1, 7, 14, 1} : std::vector<int>{1, 7, 250, 3, 200, 60, 1, 1, 1, 1, 5};
  for (int format = CW_F32; format <= CW_I4MF; format++) {
    Model model(format);
    const int cache = format >= CW_I8 ? CW_CACHE_I8 : format == CW_F32 ? CW_CACHE_F32 : CW_CACHE_F16;
    const std::vector<float> expected = model.run(portable, cache, 1, whole);
    float largest = 0;
    for (float value : expected) largest = std::max(largest, std::fabs(value));
    for (int isa = 0; isa < n_isas; isa++) {
      if (!cw_isa_usable(isa)) continue;
      const std::vector<float> once = model.run(isa, cache, 1, whole), pieces = model.run(isa, cache, 2, uneven);
      float worst = 0;
      for (size_t i = 0; i < once.size(); i++) worst = std::max(worst, std::fabs(once[i] - expected[i]));
      // A rounding that falls to the other side changes one of 127 levels of an activation.
      const bool close = worst < (format >= CW_I8 ? 5e-2f : 1e-4f) * largest;
      const bool same = !memcmp(once.data(), pieces.data(), once.size() * 4);
      printf("format %d, %-10s: %.1e of %.1f from portable%s, chunks and threads %s\n", format, cw_isa_name(isa), (double)worst, (double)largest, close ? "" : " TOO FAR", same ? "equal" : "DIFFER");
      failures += !close || !same;
    }
  }
  return failures;
}
