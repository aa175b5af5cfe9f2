#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>

#include "engine.h"

#if defined(__x86_64__)
#include <immintrin.h>
static inline void relax() { _mm_pause(); }
#elif defined(__aarch64__)
static inline void relax() { asm volatile("yield"); }
#else
static inline void relax() {}
#endif

void FreeAligned::operator()(void *p) const { free(p); }

void *allocate_aligned(size_t bytes) {
  void *p = nullptr;
  bytes = (bytes + 4095) / 4096 * 4096 + 4096;
  if (posix_memalign(&p, 4096, bytes)) throw std::bad_alloc();
  __builtin_memset(p, 0, bytes);
  return p;
}

namespace {
using Clock = std::chrono::steady_clock;
// How long an idle thread spins, and for how long it then keeps giving its turn away before it sleeps. Waking a sleeper costs up to a
// quarter of a millisecond on a virtual machine, which is a tenth of a small model's step.
constexpr auto SPIN = std::chrono::microseconds(60), YIELD = std::chrono::microseconds(3000);

int64_t nanoseconds_since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}
}  // namespace

struct Pool::Threads {
  // The phase in the upper half, the next item in the lower. A thread takes an item by adding one; what it gets names its phase.
  alignas(64) std::atomic<uint64_t> ticket{0};
  alignas(64) std::atomic<int64_t> n_done{0};  // items of the current phase
  alignas(64) std::atomic<int> n_sleeping{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> threads;
  // Of the step under way. Phase 0 has no items: it is where threads wait between steps.
  Run *run = nullptr;
  const Isa *isa = nullptr;
  // Never moved: a thread that was put aside with an old ticket may still look here. What it then takes is of the present phase.
  std::unique_ptr<Phase[]> phases{new Phase[MOST_PHASES]()};
};

Pool::Pool(int n_threads) : n_threads_(n_threads), threads_(new Threads) {
  for (int i = 1; i < n_threads; i++) threads_->threads.emplace_back([this, i] { work(i); });
}

Pool::~Pool() {
  {
    std::lock_guard lock(threads_->mutex);
    threads_->stop = true;
  }
  threads_->wake.notify_all();
  for (auto &thread : threads_->threads) thread.join();
}

// Takes one item of whatever phase is current. False where there is none.
static inline bool take(std::atomic<uint64_t> &ticket, const Phase *phases, uint64_t seen, uint64_t &taken) {
  if ((uint32_t)seen >= (uint32_t)__atomic_load_n(&phases[seen >> 32].n_items, __ATOMIC_RELAXED)) return false;
  taken = ticket.fetch_add(1, std::memory_order_acq_rel);
  return (uint32_t)taken < (uint32_t)phases[taken >> 32].n_items;
}

void Pool::work(int thread) {
  Threads &t = *threads_;
  auto idle_since = Clock::now();
  for (int turn = 0; !t.stop.load(std::memory_order_relaxed); turn++) {
    // The ticket of phase 0 never moves, so nothing of a step is read while none is under way.
    const uint64_t seen = t.ticket.load(std::memory_order_acquire);
    uint64_t taken;
    if (seen >> 32 && take(t.ticket, t.phases.get(), seen, taken)) {
      t.isa->run_item(*t.run, t.phases[taken >> 32], (int)(uint32_t)taken, thread);
      t.n_done.fetch_add(1, std::memory_order_acq_rel);
      idle_since = Clock::now();
      continue;
    }
    relax();
    if (turn % 64) continue;
    const auto idle = Clock::now() - idle_since;
    if (idle < SPIN) continue;
    if (idle < YIELD) {
      std::this_thread::yield();
      continue;
    }
    std::unique_lock lock(t.mutex);
    t.n_sleeping.fetch_add(1);
    t.wake.wait(lock, [&] { return t.stop || t.ticket.load() >> 32; });
    t.n_sleeping.fetch_sub(1);
    idle_since = Clock::now();
  }
}

void Pool::run(Run &run, const Isa &isa, const std::vector<Phase> &phases, int64_t *nanoseconds) {
  Threads &t = *threads_;
  auto start = Clock::now();
  if (n_threads_ == 1) {
    for (const Phase &phase : phases) {
      for (int i = 0; i < phase.n_items; i++) isa.run_item(run, phase, i, 0);
      if (nanoseconds) nanoseconds[phase.op] += nanoseconds_since(start), start = Clock::now();
    }
    return;
  }
  t.run = &run, t.isa = &isa;
  std::copy(phases.begin(), phases.end(), t.phases.get() + 1);
  for (size_t p = 1; p <= phases.size(); p++) {
    const Phase &phase = t.phases[p];
    if (phase.n_items == 0) continue;
    t.n_done.store(0, std::memory_order_relaxed);
    if (phase.n_items == 1) {  // not worth another core's attention
      isa.run_item(run, phase, 0, 0);
    } else {
      const uint64_t first = (uint64_t)p << 32;
      t.ticket.store(first);
      if (t.n_sleeping.load()) {
        std::lock_guard lock(t.mutex);
        t.wake.notify_all();
      }
      uint64_t taken;
      while (take(t.ticket, t.phases.get(), t.ticket.load(std::memory_order_relaxed), taken)) {
        isa.run_item(run, phase, (int)(uint32_t)taken, 0);
        t.n_done.fetch_add(1, std::memory_order_acq_rel);
      }
      const auto waiting_since = Clock::now();
      for (int turn = 1; t.n_done.load(std::memory_order_acquire) < phase.n_items; turn++) {
        relax();
        if (turn % 256 == 0 && Clock::now() - waiting_since > SPIN) std::this_thread::yield();
      }
    }
    if (nanoseconds) nanoseconds[phase.op] += nanoseconds_since(start), start = Clock::now();
  }
  t.ticket.store(0, std::memory_order_release);
}
