// The C ABI: engines, their memory, and which items an operation is cut into.
#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>

#include "engine.h"

namespace {

const Isa *const ISAS[] = {&isa_avx512vnni, &isa_avx512, &isa_avx2, &isa_neon, &isa_portable};
constexpr int N_ISAS = sizeof ISAS / sizeof *ISAS;

// Bundles of attention's items for each thread: enough that one which is slower than thought, or slowed down, delays little.
constexpr int BUNDLES = 8;
constexpr int64_t MOST_PARTIAL_BYTES = 32 << 20;

int rounded(int n, int to) { return (n + to - 1) / to * to; }

int cache_width(int cache, int head_dim) { return rounded(std::max(head_dim, 1), cache == CW_CACHE_I8 ? GROUP : PANEL); }

}  // namespace

struct cw_engine {
  Run run;
  const Isa *isa;
  std::unique_ptr<Pool> pool;
  std::vector<Phase> phases;
  std::vector<int64_t> nanoseconds;
  std::mutex mutex;
  // Memory that `run` points into.
  std::vector<Aligned<char>> memory;

  template <class T = float>
  T *take(size_t n) {
    memory.push_back(allocate<char>(n * sizeof(T)));
    return (T *)memory.back().get();
  }

  void allocate_all() {
    const size_t rows = (size_t)run.shape.max_tokens;
    int widest = GROUP, n_heads = 1;
    for (const cw_op &op : run.ops) {
      if (op.kind == CW_ATTEND) n_heads = std::max(n_heads, op.i0);
      if (op.kind == CW_MATMUL) widest = std::max(widest, op.n_in);
      if (op.kind == CW_QUANT || op.flags & CW_QUANTISE) widest = std::max({widest, op.n_in, op.n_out});
    }
    for (int32_t width : run.widths) run.buffers.push_back(take(rows * (size_t)width));
    run.quantised_width = rounded(widest, GROUP);
    const size_t n_groups = rows * (size_t)run.quantised_width / GROUP;
    run.bytes = take<int8_t>(rows * (size_t)run.quantised_width), run.byte_sums = take<int32_t>(n_groups);
    run.scales = take(n_groups), run.scaled_sums = take(n_groups);
    run.key_width = cache_width(run.shape.cache, run.shape.head_dim);
    run.key_bytes = cw_cache_bytes(run.shape.cache, run.shape.head_dim, 0);
    run.value_bytes = cw_cache_bytes(run.shape.cache, run.shape.head_dim, 1);
    for (int i = 0; i < run.shape.n_threads; i++) {
      const size_t tile = ATTEND_TILE, width = tile * (size_t)run.key_width;
      run.scratch.push_back({take(width), take<int8_t>(width), take(width / PANEL), take<int32_t>(width / PANEL), take(tile * SHARE),
                             take<int16_t>(tile * SHARE), take(width), take(width)});
    }
    // As long as the longest sequence can be, for as many tiles as can be split (see `plan_attention`), but no more than so many
    // bytes: a tile for whose shares there is no room left is one item.
    const int64_t most_shares = rounded(run.shape.n_cache_blocks * CW_BLOCK_TOKENS, SHARE) / SHARE;
    const int64_t n_tiles = pool->size() > 1 ? BUNDLES * pool->size() : 0;
    run.n_partials = std::min(n_tiles * ATTEND_TILE * most_shares, MOST_PARTIAL_BYTES / (4 * run.key_width));
    run.partial_out = take((size_t)run.n_partials * (size_t)run.key_width);
    run.partial_max = take((size_t)run.n_partials), run.partial_sum = take((size_t)run.n_partials);
  }

  void add_phase(int op, Phase::Part part, int n, int per_item) {
    if (n > 0) phases.push_back({op, part, (n + per_item - 1) / per_item, per_item});
  }

  // Rows or panels go in about four items a thread: a thread that the system slows down gets fewer of them.
  void add_even(int op, Phase::Part part, int n, int at_least) {
    add_phase(op, part, n, std::max(at_least, n / (4 * pool->size())));
  }

  // A tile takes as long as it looks back: those of a prompt's chunk may take a hundred times as long as an answer's. Bundles of them
  // are cut so that each takes about as long, and a tile that takes longer than a bundle should is split between two shares. This
  // decides who computes a share, never what is one: shares begin at multiples of SHARE and are merged in their order everywhere.
  void plan_attention(const cw_op &op) {
    const cw_step &step = *run.step;
    const int ratio = op.i0 / op.i1;
    const auto shares_of = [&](const cw_sequence &s, int last_row) { return (s.position + last_row / ratio) / SHARE + 1; };
    // Reading a share's keys and values costs about as much as four rows do.
    const auto cost_of = [](int n_rows, int n_shares) { return (int64_t)(n_rows + 4) * n_shares; };
    // Who looks back furthest comes first, so that little is left to wait for in the end; the last tile of a chunk before the others.
    attend_order.clear();
    int64_t total = 0;
    for (int i = 0; i < step.n_sequences; i++) {
      const cw_sequence &s = step.sequences[i];
      attend_order.push_back(i);
      for (int row = 0; row < s.n_tokens * ratio; row += ATTEND_TILE) {
        const int n_rows = std::min(ATTEND_TILE, s.n_tokens * ratio - row);
        total += op.i1 * cost_of(n_rows, shares_of(s, row + n_rows - 1));
      }
    }
    std::sort(attend_order.begin(), attend_order.end(), [&](int a, int b) {
      const cw_sequence &s = step.sequences[a], &t = step.sequences[b];
      return s.position != t.position ? s.position > t.position : a < b;
    });
    const int64_t enough = std::max<int64_t>(total / (BUNDLES * pool->size()), 1);
    run.attend_items.clear(), run.attend_splits.clear(), run.attend_bundles.assign(1, 0);
    int64_t bundled = 0, n_partials = 0;
    const auto add = [&](const AttendItem &item) {
      run.attend_items.push_back(item);
      bundled += cost_of(item.n_rows, item.last_share - item.first_share);
      if (bundled >= enough) run.attend_bundles.push_back((int32_t)run.attend_items.size()), bundled = 0;
    };
    for (int i : attend_order) {
      const cw_sequence &s = step.sequences[i];
      const int n_rows = s.n_tokens * ratio;
      for (int group = 0; group < op.i1; group++) {
        for (int tile = (n_rows - 1) / ATTEND_TILE; tile >= 0; tile--) {
          const int n = std::min(ATTEND_TILE, n_rows - tile * ATTEND_TILE), n_shares = shares_of(s, tile * ATTEND_TILE + n - 1);
          const int n_pieces = (int)std::min<int64_t>((cost_of(n, n_shares) + enough - 1) / enough, n_shares);
          AttendItem item{i, group, tile * ATTEND_TILE, n, 0, n_shares, -1};
          if (pool->size() == 1 || n_pieces < 2 || n_partials + (int64_t)n_shares * n > run.n_partials) {
            add(item);
            continue;
          }
          item.split = (int32_t)run.attend_splits.size();
          run.attend_splits.push_back({n_partials, n_pieces, n_pieces});
          n_partials += (int64_t)n_shares * n;
          for (int piece = 0; piece < n_pieces; piece++) {
            item.first_share = n_shares * piece / n_pieces, item.last_share = n_shares * (piece + 1) / n_pieces;
            add(item);
          }
        }
      }
    }
    if (bundled) run.attend_bundles.push_back((int32_t)run.attend_items.size());
  }
  std::vector<int> attend_order;

  void plan() {
    phases.clear();
    const cw_step &step = *run.step;
    bool attention_planned = false, adapted = false;
    run.adapter_of_row.assign((size_t)step.n_tokens, -1);
    for (int i = 0; i < step.n_sequences; i++) {
      const cw_sequence &s = step.sequences[i];
      if (s.adapter < 0) continue;
      adapted = true;
      std::fill_n(run.adapter_of_row.begin() + s.first, s.n_tokens, s.adapter);
    }
    for (int i = 0; i < (int)run.ops.size(); i++) {
      const cw_op &op = run.ops[(size_t)i];
      const int n_rows = op.flags & CW_WANTED ? step.n_wanted : step.n_tokens;
      switch (op.kind) {
        case CW_MATMUL:
          if (op.flags & CW_LOGITS && !step.logits) break;
          add_even(i, Phase::MAIN, n_rows ? (int)panels_of(op.n_out) : 0, 1);
          if (adapted && op.lora >= 0) add_even(i, Phase::LOW_RANK, n_rows, 1);
          break;
        case CW_ATTEND:
          // All layers have the same heads, so the items of the first serve for all.
          if (!attention_planned) plan_attention(op), attention_planned = true;
          add_phase(i, Phase::MAIN, (int)run.attend_bundles.size() - 1, 1);
          break;
        default:
          add_even(i, Phase::MAIN, n_rows, op.kind == CW_QKV ? 2 : 4);
      }
    }
  }
};

static bool is_known(const cw_shape &shape, const cw_op &op) {
  const auto buffer = [&](int i) { return i >= 0 && i < shape.n_buffers; };
  const bool integer = is_integer(op.format);
  if (op.format < CW_F32 || op.format > CW_I4MF) return false;
  switch (op.kind) {
    case CW_EMBED: return buffer(op.dst) && op.weights && op.n_out <= shape.widths[op.dst];
    case CW_ADD: return buffer(op.dst) && op.table && op.n_out <= shape.widths[op.dst];
    case CW_NORM:
    case CW_ACT:
    case CW_GATHER: return buffer(op.src) && buffer(op.dst) && op.n_out <= shape.widths[op.dst] && shape.widths[op.dst] % GROUP == 0;
    case CW_QUANT: return buffer(op.src) && op.n_in <= shape.widths[op.src] && shape.widths[op.src] % GROUP == 0;
    case CW_MATMUL:
      if (!buffer(op.src) || !op.weights || op.n_in > shape.widths[op.src] || (!integer && shape.widths[op.src] < rounded(op.n_in, GROUP))) return false;
      return op.flags & CW_LOGITS || (buffer(op.dst) && op.i0 >= 0 && op.i0 + rounded(op.n_out, PANEL) <= shape.widths[op.dst]);
    case CW_QKV:
    case CW_ATTEND:
      if (op.i0 < 1 || op.i1 < 1 || op.i0 % op.i1 || op.i2 != shape.head_dim || op.i1 != shape.n_kv_heads || op.i3 < 0 || op.i3 >= shape.n_layers) return false;
      if (op.kind == CW_QKV) return buffer(op.dst) && (op.i0 + 2 * op.i1) * op.i2 <= shape.widths[op.dst];
      return buffer(op.src) && buffer(op.dst) && op.i0 * op.i2 <= shape.widths[op.dst];
  }
  return false;
}

int cw_abi(void) { return CW_ABI; }

int64_t cw_cache_bytes(int cache, int head_dim, int values) {
  const int64_t width = cache_width(cache, head_dim);
  const int64_t scales = cache != CW_CACHE_I8 ? 0 : values ? 1 : width / GROUP;
  return CW_BLOCK_TOKENS * (width * (cache == CW_CACHE_F32 ? 4 : cache == CW_CACHE_F16 ? 2 : 1) + 4 * scales);
}

const char *cw_isa_name(int index) { return index >= 0 && index < N_ISAS ? ISAS[index]->name : nullptr; }

int cw_isa_usable(int index) { return index >= 0 && index < N_ISAS && ISAS[index]->usable(); }

cw_engine *cw_create(const cw_shape *shape, int isa) {
  if (!cw_isa_usable(isa) || shape->max_tokens < 1 || shape->n_threads < 1 || shape->cache < CW_CACHE_F16 || shape->cache > CW_CACHE_I8 || (size_t)shape->n_ops * 2 + 1 > MOST_PHASES) return nullptr;
  for (int i = 0; i < shape->n_ops; i++)
    if (!is_known(*shape, shape->ops[i])) return nullptr;
  try {
    auto engine = std::make_unique<cw_engine>();
    engine->isa = ISAS[isa];
    engine->run.shape = *shape;
    engine->run.ops.assign(shape->ops, shape->ops + shape->n_ops);
    engine->run.widths.assign(shape->widths, shape->widths + shape->n_buffers);
    engine->pool = std::make_unique<Pool>(shape->n_threads);
    engine->allocate_all();
    return engine.release();
  } catch (const std::exception &) {  // no memory, no threads
    return nullptr;
  }
}

void cw_destroy(cw_engine *engine) { delete engine; }

int cw_set_adapter(cw_engine *engine, int index, const cw_lora *parts, int n) {
  if (index < 0 || index > 1 << 16) return 1;
  std::lock_guard lock(engine->mutex);
  auto &adapters = engine->run.adapters;
  if ((size_t)index >= adapters.size()) adapters.resize((size_t)index + 1);
  adapters[(size_t)index].assign(parts, parts + n);
  return 0;
}

int cw_run(cw_engine *engine, const cw_step *step) {
  std::lock_guard lock(engine->mutex);
  Run &run = engine->run;
  if (step->n_tokens < 1 || step->n_tokens > run.shape.max_tokens || step->n_sequences < 1 || step->n_wanted > step->n_tokens) return 1;
  int row = 0;
  for (int i = 0; i < step->n_sequences; i++) {
    const cw_sequence &s = step->sequences[i];
    if (s.first != row || s.n_tokens < 1 || s.position < 0 || s.adapter >= (int)run.adapters.size()) return 1;
    for (int b = 0; b <= (s.position + s.n_tokens - 1) / CW_BLOCK_TOKENS; b++)
      if (s.blocks[b] < 0 || s.blocks[b] >= run.shape.n_cache_blocks) return 1;
    row += s.n_tokens;
  }
  if (row != step->n_tokens) return 1;
  run.step = step;
  try {
    engine->plan();
  } catch (const std::bad_alloc &) {
    return 1;
  }
  engine->pool->run(run, *engine->isa, engine->phases, engine->nanoseconds.empty() ? nullptr : engine->nanoseconds.data());
  if (step->hidden) {
    // what the head takes in
    for (const cw_op &op : run.ops) {
      if (op.kind != CW_MATMUL || !(op.flags & CW_LOGITS)) continue;
      for (int i = 0; i < step->n_wanted; i++)
        memcpy(step->hidden + (int64_t)i * op.n_in, run.buffers[(size_t)op.src] + (int64_t)i * run.widths[(size_t)op.src], (size_t)op.n_in * 4);
    }
  }
  return 0;
}

void cw_weigh(int isa, const float *logits, int64_t n, float temperature, float *weights, double *runs) {
  ISAS[isa]->weigh(logits, n, temperature, weights, runs);
}

void cw_profile(cw_engine *engine, int64_t *nanoseconds) {
  std::lock_guard lock(engine->mutex);
  engine->nanoseconds.resize(engine->run.ops.size());
  std::copy(engine->nanoseconds.begin(), engine->nanoseconds.end(), nanoseconds);
  std::fill(engine->nanoseconds.begin(), engine->nanoseconds.end(), 0);
}
