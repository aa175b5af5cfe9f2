"""What Prometheus reads (`scrape`). Names follow vLLM's. Labels are bounded: served models, route templates, codes of our own.

Tokens and requests of models are counted when a request ends, at the moment when it is entered into the usage tables: their sums
are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from chatwright.engine.protocol import EngineStats

FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BETWEEN_TOKENS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 5)
TOKENS_PER_S = (1, 2.5, 5, 10, 20, 30, 50, 75, 100, 150, 250, 500, 1000)
REQUEST_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """One per app, with a registry of its own."""

    def __init__(self, engines: Callable[[], Mapping[str, EngineStats]]) -> None:
        """`engines`: figures of each engine at this moment, by the name of its model."""
        self.registry = registry = CollectorRegistry()
        self.model_requests = Counter(
            "chatwright_model_requests", "Requests that models answered.", ["model", "kind"], registry=registry
        )
        self.prompt_tokens = Counter("chatwright_prompt_tokens", "Tokens of prompts.", ["model"], registry=registry)
        self.cached_tokens = Counter(
            "chatwright_cached_prompt_tokens", "Tokens of prompts found in the cache.", ["model"], registry=registry
        )
        self.generation_tokens = Counter(
            "chatwright_generation_tokens", "Tokens of answers.", ["model"], registry=registry
        )
        self.first_token = Histogram(
            "chatwright_time_to_first_token_seconds",
            "From a request's arrival to the first text of its answer.",
            ["model"],
            buckets=FIRST_TOKEN_S,
            registry=registry,
        )
        self.between_tokens = Histogram(
            "chatwright_inter_token_latency_seconds",
            "Between two tokens of an answer.",
            ["model"],
            buckets=BETWEEN_TOKENS_S,
            registry=registry,
        )
        self.speed = Histogram(
            "chatwright_tokens_per_second",
            "Tokens a second of a whole answer, from its first token on.",
            ["model"],
            buckets=TOKENS_PER_S,
            registry=registry,
        )
        self.http_requests = Counter(
            "chatwright_http_requests", "Answered requests.", ["method", "route", "status"], registry=registry
        )
        self.http_seconds = Histogram(
            "chatwright_http_request_duration_seconds",
            "From a request's arrival to the end of its answer.",
            ["route"],
            buckets=REQUEST_S,
            registry=registry,
        )
        self.errors = Counter(
            "chatwright_errors", "Requests that failed, by the error's code.", ["code"], registry=registry
        )
        registry.register(_Engines(engines))


class _Engines(Collector):
    """What engines say of themselves, asked when somebody reads it."""

    def __init__(self, engines: Callable[[], Mapping[str, EngineStats]]) -> None:
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        """One family for each figure."""
        stats = self._engines()
        for name, text, figure in _GAUGES:
            gauge = GaugeMetricFamily(f"chatwright_{name}", text, labels=["engine"])
            for engine, found in stats.items():
                gauge.add_metric([engine], figure(found))
            yield gauge
        for name, text, figure in _COUNTERS:
            counter = CounterMetricFamily(f"chatwright_{name}", text, labels=["engine"])
            for engine, found in stats.items():
                counter.add_metric([engine], figure(found))
            yield counter


_Figure = Callable[[EngineStats], float]
_GAUGES: tuple[tuple[str, str, _Figure], ...] = (
    ("engine_up", "1 while the engine takes requests.", lambda stats: float(stats.alive)),
    ("engine_loaded", "1 while the model is in memory.", lambda stats: float(stats.loaded)),
    ("num_requests_running", "Answers that are being written.", lambda stats: stats.running),
    ("num_requests_waiting", "Answers that wait for their turn.", lambda stats: stats.waiting),
    (
        "kv_cache_usage_ratio",
        "Share of the cache that running answers hold.",
        lambda stats: stats.blocks_used / stats.blocks_total if stats.blocks_total else 0.0,
    ),
    (
        "kv_cache_kept_ratio",
        "Share of the cache that keeps beginnings for those who come with them again.",
        lambda stats: stats.blocks_cached / stats.blocks_total if stats.blocks_total else 0.0,
    ),
)
_COUNTERS: tuple[tuple[str, str, _Figure], ...] = (
    (
        "prefix_cache_hit_tokens",
        "Tokens found in the cache, since the engine started.",
        lambda stats: stats.reused_tokens,
    ),
    ("preemptions", "Answers that gave their place to others for a while.", lambda stats: stats.preemptions),
)
