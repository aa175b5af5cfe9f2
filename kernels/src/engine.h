// What a step is made of: the engine's memory, the phases of the operations, and the threads that take items of phases.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "chatwright_kernels.h"
#include "layout.h"

// Positions of one share of attention. Shares are merged in their order, whoever computed them.
constexpr int SHARE = 256;
// Query rows of one item of attention: a tile.
constexpr int ATTEND_TILE = 12;
constexpr size_t MOST_PHASES = 1 << 16;

struct FreeAligned {
  void operator()(void *p) const;
};
template <class T>
using Aligned = std::unique_ptr<T[], FreeAligned>;
// Zeroed; throws std::bad_alloc.
void *allocate_aligned(size_t bytes);
template <class T>
Aligned<T> allocate(size_t n) {
  return Aligned<T>((T *)allocate_aligned(n * sizeof(T)));
}

// Work that one operation needs done before the next may begin, cut into items that any thread may take.
struct Phase {
  enum Part : int32_t { MAIN, LOW_RANK };
  int32_t op, part, n_items, per_item;
};

// Query rows `first_row .. + n_rows` (token x heads of the group) of one sequence and key head, and those of their shares that lie in
// `first_share .. last_share`. `split`: the index of what holds the shares of a tile that is several items, or -1.
struct AttendItem {
  int32_t sequence, group, first_row, n_rows, first_share, last_share, split;
};

// A tile whose shares several items compute. Whoever is the last of them puts the shares together, in their order.
struct AttendSplit {
  int64_t first_partial;  // of (shares, rows)
  int32_t n_items, n_left;
};

// Of one thread, for the rows of one item.
struct AttendScratch {
  float *queries;     // (ATTEND_TILE, key_width)
  int8_t *bytes;      // the same quantised, with scales and minus the sums of each 32
  float *scales;
  int32_t *totals;
  float *weights;     // (ATTEND_TILE, SHARE)
  int16_t *shorts;    // the same times the values' scales, quantised
  float *share, *merged;  // (ATTEND_TILE, key_width)
};

struct Run {
  std::vector<cw_op> ops;
  std::vector<float *> buffers;
  std::vector<int32_t> widths;
  cw_shape shape;
  const cw_step *step;
  int key_width;  // head dimension to 16, or to 32 where the cache has eight bits
  int64_t key_bytes, value_bytes;  // of a block of one layer and head
  // The quantised scratch: rows of bytes, and for each group of 32 its scale, scale x sum and minus the sum.
  int quantised_width;
  int8_t *bytes;
  float *scales, *scaled_sums;
  int32_t *byte_sums;
  // Attention
  std::vector<AttendItem> attend_items;
  std::vector<int32_t> attend_bundles;  // where each bundle of items begins that a thread takes at a time, and where the last one ends
  std::vector<AttendSplit> attend_splits;
  int64_t n_partials;        // what there is room for
  float *partial_out;        // (n_partials, key_width)
  float *partial_max, *partial_sum;
  std::vector<AttendScratch> scratch;  // of each thread
  std::vector<std::vector<cw_lora>> adapters;
  std::vector<int32_t> adapter_of_row;  // of each token of the step
};

// An instruction set's kernels.
struct Isa {
  const char *name;
  bool (*usable)();
  void (*run_item)(Run &run, const Phase &phase, int item, int thread);
  void (*weigh)(const float *logits, int64_t n, float temperature, float *weights, double *runs);
};
extern const Isa isa_avx512vnni, isa_avx512, isa_avx2, isa_neon, isa_portable;

// Threads of our own. They take items of the current phase; none is waited for that holds no item, so one that the system has put
// aside delays nobody. Between steps they spin for a moment, then sleep.
class Pool {
 public:
  explicit Pool(int n_threads);
  ~Pool();
  // Runs all phases, each after the one before it.
  void run(Run &run, const Isa &isa, const std::vector<Phase> &phases, int64_t *nanoseconds);
  int size() const { return n_threads_; }

 private:
  void work(int thread);
  struct Threads;
  int n_threads_;
  std::unique_ptr<Threads> threads_;
};
