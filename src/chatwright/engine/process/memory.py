"""Which of several models may be loaded at the same time: a budget of memory, shared out before anything is allocated."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chatwright.engine.kernels.library import Kernels, load_kernels
from chatwright.errors import OverloadedError, UsageError
from chatwright.i18n import format_size
from chatwright.machine import available_memory_bytes
from chatwright.model.config import ModelConfig
from chatwright.model.describe import ModelInfo
from chatwright.settings import Settings

log = logging.getLogger(__name__)

# Python, PyTorch and room to compute in, measured: a process that has loaded a model of 0.1 MB takes 330 MB.
OVERHEAD_BYTES = 400 * 10**6
# Of what is free when the server starts; the rest is for the system, its file cache, and the server.
DEFAULT_SHARE = 0.8
# Bytes of a weight and of a cached number on PyTorch.
FLOAT_BYTES = 4
# … and of both on the compiled kernels, scales included.
PACKED_BYTES = {"int8": 1.1, "int4": 0.75, "bf16": 2.0, "fp32": 4.0}
CACHE_BYTES = {"int8": 1.2, "int4": 1.2, "bf16": 2.0, "fp32": 4.0}
# Without room for a conversation of this many tokens a model is not worth loading.
LEAST_CACHE_TOKENS = 2048
# A model in use just now may be free in a moment; clients try again after that.
ROOM_WAIT_S = 5.0
ROOM_POLL_S = 0.05


@dataclass(frozen=True)
class MemoryNeed:
    """What a model takes, estimated from its headers: `fixed_bytes` (weights, process), and a cache of keys and values of
    `bytes_per_token`, from `least_tokens` (below which it is not worth loading) to `most_tokens`."""

    fixed_bytes: int
    bytes_per_token: int
    least_tokens: int
    most_tokens: int

    @classmethod
    def of(cls, info: ModelInfo, settings: Settings) -> MemoryNeed:
        """Of a model as it will be loaded."""
        config = info.config
        weight_bytes, cache_bytes = _precision(info, settings)
        per_token = 1  # a recurrent model's state does not grow
        if isinstance(config, ModelConfig):
            per_token = int(2 * config.n_layer * config.n_kv_head * config.head_dim * cache_bytes)
        most = settings.kv_cache_tokens
        return cls(
            fixed_bytes=int(weight_bytes * info.n_parameters) + OVERHEAD_BYTES,
            bytes_per_token=per_token,
            least_tokens=min(LEAST_CACHE_TOKENS, info.context_length, most),
            most_tokens=most,
        )

    @property
    def least_bytes(self) -> int:
        """Without this much it is not loaded."""
        return self.fixed_bytes + self.least_tokens * self.bytes_per_token


def _precision(info: ModelInfo, settings: Settings) -> tuple[float, float]:
    """Bytes of a weight, and of a number in the cache."""
    # Encoders, recurrent models and heads for labels are float32, on PyTorch.
    on_kernels = isinstance(load_kernels(), Kernels) and isinstance(info.config, ModelConfig) and not info.labels
    if not on_kernels or settings.device not in ("auto", "cpu"):
        return FLOAT_BYTES, FLOAT_BYTES
    kind = settings.quantization
    if kind == "auto":  # a file of 4 bits stays one
        kind = "int4" if info.quantization.startswith("Q4") else "int8"
    return PACKED_BYTES[kind], CACHE_BYTES[kind]


class Tenant(Protocol):
    """A model that takes memory while it is loaded: `supervised.ProcessEngine`."""

    name: str
    need: MemoryNeed
    used_at: float

    @property
    def idle(self) -> bool:
        """Whether it may be unloaded now."""

    async def unload(self) -> None:
        """Give the memory back."""


@dataclass(frozen=True)
class _Holding:
    n_bytes: int
    n_tokens: int


class MemoryBudget:
    """`limit_bytes` of memory for all loaded models. `firm`: the user named the limit; one that was guessed does not keep a model
    from being tried alone."""

    def __init__(self, limit_bytes: int, *, firm: bool) -> None:
        self.limit_bytes = limit_bytes
        self.firm = firm
        self._tenants: list[Tenant] = []
        self._held: dict[str, _Holding] = {}
        self._lock = asyncio.Lock()

    @classmethod
    def of(cls, settings: Settings) -> MemoryBudget:
        """The user's limit, or a share of the memory that is free now."""
        if settings.memory_limit:
            return cls(settings.memory_limit, firm=True)
        return cls(int(DEFAULT_SHARE * available_memory_bytes()), firm=False)

    def add(self, tenant: Tenant) -> None:
        """One more model that may be loaded some day. Raises UsageError for one that never can."""
        if self.firm and tenant.need.least_bytes > self.limit_bytes:
            raise UsageError(
                "{name} needs about {need} of memory, but memory_limit allows {limit}: raise it, or serve a smaller model.",
                name=tenant.name,
                need=format_size(tenant.need.least_bytes),
                limit=format_size(self.limit_bytes),
            )
        self._tenants.append(tenant)

    async def enter(self, tenant: Tenant) -> None:
        """Make room, as `take` does, for what comes and goes and is no model that is served. Raises as both `take` and
        `add` do."""
        self.add(tenant)
        try:
            await self.take(tenant)
        except BaseException:
            self.leave(tenant)
            raise

    def leave(self, tenant: Tenant) -> None:
        """The inverse of `enter`."""
        self.give_back(tenant)
        if tenant in self._tenants:
            self._tenants.remove(tenant)

    @property
    def free_bytes(self) -> int:
        """What no loaded model holds."""
        return self.limit_bytes - sum(holding.n_bytes for holding in self._held.values())

    async def take(self, tenant: Tenant) -> int:
        """Make room for a model, by unloading idle ones that were used least recently. Returns how many tokens its cache may hold.

        Raises OverloadedError while the models that must go are answering.
        """
        async with self._lock:
            if holding := self._held.get(tenant.name):  # it crashed, and is started again
                return holding.n_tokens
            deadline = time.monotonic() + ROOM_WAIT_S
            while tenant.need.least_bytes > self.free_bytes and (self.firm or self._held):
                idle = [other for other in self._tenants if other.name in self._held and other.idle]
                if self._would_fit(tenant, idle):
                    oldest = min(idle, key=lambda other: other.used_at)
                    log.info("unloading %s to make room for %s", oldest.name, tenant.name)
                    await oldest.unload()
                elif time.monotonic() < deadline:
                    await asyncio.sleep(ROOM_POLL_S)
                else:
                    raise self._no_room(tenant)
            n_tokens = self._cache_tokens(tenant)
            n_bytes = tenant.need.fixed_bytes + n_tokens * tenant.need.bytes_per_token
            self._held[tenant.name] = _Holding(n_bytes, n_tokens)
            return n_tokens

    def give_back(self, tenant: Tenant) -> None:
        """The model is not loaded any more."""
        self._held.pop(tenant.name, None)

    def correct(self, tenant: Tenant, fixed_bytes: int) -> None:
        """What a loaded model really takes without its cache."""
        if holding := self._held.get(tenant.name):
            n_bytes = fixed_bytes + holding.n_tokens * tenant.need.bytes_per_token
            self._held[tenant.name] = _Holding(n_bytes, holding.n_tokens)

    def _would_fit(self, tenant: Tenant, idle: Sequence[Tenant]) -> bool:
        """Whether unloading all of them would be enough. Where a guessed limit is too small for it anyhow, alone is enough."""
        free = self.free_bytes + sum(self._held[other.name].n_bytes for other in idle)
        if not self.firm and len(idle) == len(self._held) and idle:
            return True
        return bool(idle) and tenant.need.least_bytes <= free

    def _cache_tokens(self, tenant: Tenant) -> int:
        """A fair share of what is left when every model that is not loaded yet has got the least it needs. A model that is alone
        under a guessed limit is told none: its process sees for itself what is free."""
        need = tenant.need
        if not self.firm and len(self._tenants) == 1:
            return need.most_tokens
        others = [o for o in self._tenants if o.name not in self._held and o is not tenant]
        spare = self.free_bytes - need.least_bytes - sum(other.need.least_bytes for other in others)
        extra = max(0, spare) // (1 + len(others)) // need.bytes_per_token
        return min(need.most_tokens, need.least_tokens + extra)

    def _no_room(self, tenant: Tenant) -> OverloadedError:
        return OverloadedError(
            "There is no room for {name} just now: it needs about {need} of memory, {free} of {limit} are free, and the other "
            "models are answering. Try again in a moment.",
            name=tenant.name,
            need=format_size(tenant.need.least_bytes),
            free=format_size(max(0, self.free_bytes)),
            limit=format_size(self.limit_bytes),
        )
