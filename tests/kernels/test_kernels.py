"""Every kernel against a plain reference, on odd shapes, for every instruction set that this processor has."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

from chatwright.engine.kernels.library import (
    Cache,
    Format,
    Kernels,
    LoRA,
    Op,
    Source,
    Unavailable,
    library_path,
    open_library,
)
from chatwright.engine.kernels.program import Flag, Kind

from .one_op import Array, Heads, Machine, all_kernels, packed, unpacked

KERNELS = all_kernels()
SETS = pytest.mark.parametrize("kernels", KERNELS, ids=[kernels.isa_name for kernels in KERNELS])
FORMATS = pytest.mark.parametrize("form", list(Format), ids=[form.name for form in Format])


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def up_to(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def op(kind: Kind, flags: Flag = Flag(0), **fields: Any) -> Op:
    return Op(kind=kind, flags=flags, **({"src": -1, "dst": -1, "lora": -1} | fields))


def run_rows(
    kernels: Kernels, x: Array, ops: list[Op], widths: list[int], out: int, n_threads: int = 1, **run: Any
) -> Array:
    """`x` into buffer 0, the operations, and out comes buffer `out`. Buffers are as wide as `widths`, padded to 32."""
    n, columns = x.shape
    widths = [up_to(width, 32) for width in widths]
    table = packed(kernels, Format.F32, Source.F32, x, columns)
    identity = packed(kernels, Format.F32, Source.F32, np.eye(widths[out], dtype=np.float32), widths[out])
    whole = [
        op(Kind.EMBED, dst=0, n_out=columns, format=Format.F32, weights=table.ctypes.data, f0=1.0),
        *ops,
        op(
            Kind.MATMUL,
            Flag.LOGITS,
            src=out,
            n_in=widths[out],
            n_out=widths[out],
            format=Format.F32,
            weights=identity.ctypes.data,
        ),
    ]
    machine = Machine(kernels, whole, widths, rows=n, n_threads=n_threads, heads=run.pop("heads", None))
    before = run.pop("before", None)
    if before:
        before(machine)
    result = machine.run(list(range(n)), width=widths[out], **run)
    machine.close()
    return result


def activations_as_bytes(x: Array) -> Array:
    """What an integer product sees of its input: 8 bits and one scale for each 32."""
    n, columns = x.shape
    padded = np.zeros((n, up_to(columns, 32)), np.float32)
    padded[:, :columns] = x
    groups = padded.reshape(n, -1, 32)
    most = np.abs(groups).max(-1, keepdims=True)
    with np.errstate(all="ignore"):
        q = np.where(most > 0, np.rint(groups * (np.float32(127) / most)), 0)
    return (q * (most / np.float32(127))).reshape(n, -1)[:, :columns].astype(np.float32)


@SETS
@FORMATS
@pytest.mark.parametrize(
    ("n_rows", "n_out", "n_in"), [(1, 16, 32), (3, 5, 40), (9, 33, 96), (17, 100, 70), (8, 48, 576)]
)
def test_products(kernels: Kernels, form: Format, n_rows: int, n_out: int, n_in: int) -> None:
    x, weights = random(n_rows, n_in), random(n_out, n_in, seed=1)
    bias = np.zeros(up_to(n_out, 16), np.float32)
    bias[:n_out] = random(n_out, seed=2)
    place = packed(kernels, form, Source.F32, weights, n_in)
    ops = [op(Kind.QUANT, src=0, n_in=n_in)] if form >= Format.I8 else []
    ops.append(
        op(
            Kind.MATMUL,
            src=0,
            dst=1,
            n_in=n_in,
            n_out=n_out,
            format=form,
            weights=place.ctypes.data,
            bias=bias.ctypes.data,
        )
    )
    ops.append(
        op(Kind.MATMUL, Flag.ACCUMULATE, src=0, dst=1, n_in=n_in, n_out=n_out, format=form, weights=place.ctypes.data)
    )
    y = run_rows(kernels, x, ops, [n_in, n_out], 1)[:, :n_out]
    seen = activations_as_bytes(x) if form >= Format.I8 else x
    exact = unpacked(kernels, form, place, n_out, n_in).astype(np.float64)
    expected = 2 * (seen.astype(np.float64) @ exact.T) + bias[:n_out]
    assert np.abs(y - expected).max() < 2e-5 * np.abs(expected).max()


@SETS
@FORMATS
def test_a_row_is_the_same_in_every_tile_and_for_any_number_of_threads(kernels: Kernels, form: Format) -> None:
    n_in, n_out = 160, 112
    x = random(23, n_in)
    place = packed(kernels, form, Source.F32, random(n_out, n_in, seed=1), n_in)
    ops = [
        op(Kind.QUANT, src=0, n_in=n_in),
        op(Kind.MATMUL, src=0, dst=1, n_in=n_in, n_out=n_out, format=form, weights=place.ctypes.data),
    ]
    together = run_rows(kernels, x, ops, [n_in, n_out], 1)
    assert np.array_equal(together, run_rows(kernels, x, ops, [n_in, n_out], 1, n_threads=3))
    for i in range(len(x)):
        assert np.array_equal(together[i : i + 1], run_rows(kernels, x[i : i + 1], ops, [n_in, n_out], 1))


@pytest.mark.parametrize(
    ("kind", "source", "form", "row_bytes"),
    [
        (Type.Q8_0, Source.Q8_0, Format.I8, 34 * 8),
        (Type.Q4_0, Source.Q4_0, Format.I4, 18 * 8),
        (Type.Q4_1, Source.Q4_1, Format.I4M, 20 * 8),
        (Type.Q4_1, Source.Q4_1, Format.I4MF, 20 * 8),
        (Type.Q4_K, Source.Q4_K, Format.I4MF, 144),
    ],
)
def test_blocks_of_gguf_stay_exactly_what_they_are(kind: Type, source: Source, form: Format, row_bytes: int) -> None:
    if kind is Type.Q4_K:  # the package only reads these: any bytes are blocks, if the two scales are ordinary numbers
        blocks = np.random.default_rng(0).integers(0, 256, (21, row_bytes), dtype=np.uint8)
        blocks[:, :4] = np.array([0.01, 0.02], np.float16).view(np.uint8)
    else:
        blocks = quantize(random(21, 256), kind)
    place = packed(KERNELS[0], form, source, blocks, 256)
    assert np.array_equal(unpacked(KERNELS[0], form, place, 21, 256), dequantize(blocks, kind))


@FORMATS
def test_packing_floats(form: Format) -> None:
    weights = random(37, 100)
    weights[3] = 0
    back = unpacked(KERNELS[0], form, packed(KERNELS[0], form, Source.F32, weights, 100), 37, 100)
    error = np.sqrt(np.mean((back - weights) ** 2)) / weights.std()
    assert error <= {Format.F32: 0, Format.BF16: 2e-3, Format.I8: 7e-3}.get(form, 0.12)
    assert (back[3] == 0).all()


def test_a_source_that_does_not_become_a_format_is_refused() -> None:
    c, rows = KERNELS[0].c, np.zeros((1, 256), np.uint8)
    for form, source, columns in [(Format.I8, Source.Q4_0, 32), (Format.I4, Source.Q4_0, 40), (99, Source.F32, 32)]:
        assert c.cw_pack(form, source, rows.ctypes.data, 256, 1, columns, rows.ctypes.data) == 1


@SETS
@pytest.mark.parametrize("width", [32, 40, 100, 576])
def test_norms(kernels: Kernels, width: int) -> None:
    x, weight, bias = random(5, width), random(width, seed=1), random(width, seed=2)
    x[2] *= 1e4
    rms = op(Kind.NORM, src=0, dst=1, n_out=width, weights=weight.ctypes.data, f0=1e-5)
    expected = F.rms_norm(torch.from_numpy(x), (width,), torch.from_numpy(weight), 1e-5).numpy()
    assert np.allclose(run_rows(kernels, x, [rms], [width, width], 1)[:, :width], expected, rtol=2e-5, atol=2e-6)
    layer = op(
        Kind.NORM,
        Flag.ACCUMULATE,
        src=0,
        dst=0,
        n_out=width,
        weights=weight.ctypes.data,
        bias=bias.ctypes.data,
        i0=1,
        f0=1e-5,
    )
    normed = F.layer_norm(torch.from_numpy(x), (width,), torch.from_numpy(weight), torch.from_numpy(bias), 1e-5).numpy()
    assert np.allclose(run_rows(kernels, x, [layer], [width], 0)[:, :width], x + normed, rtol=2e-5, atol=2e-5)


@SETS
@pytest.mark.parametrize("width", [32, 40, 100])
@pytest.mark.parametrize("gated", [False, True])
def test_activations(kernels: Kernels, width: int, gated: bool) -> None:
    x = random(3, width * (2 if gated else 1)) * 4
    x[0, :4] = [100, -100, 0, -88]
    functions = [F.gelu, lambda t: F.gelu(t, approximate="tanh"), F.silu, F.relu]
    for i, function in enumerate(functions):
        act = op(Kind.ACT, Flag.GATED if gated else Flag(0), src=0, dst=1, n_out=width, i0=i)
        y = run_rows(kernels, x, [act], [x.shape[1], width], 1)[:, :width]
        t = torch.from_numpy(x)
        expected = function(t[:, :width]) * (t[:, width:] if gated else 1)
        assert np.allclose(y, expected.numpy(), rtol=2e-5, atol=2e-6), i


def attention_reference(q: Array, k: Array, v: Array, scale: float, window: int) -> Array:
    """(T, H, D), (T, G, D), (T, G, D) → (T, H, D)."""
    k, v = (np.repeat(x.astype(np.float64), q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    scores = np.einsum("thd,shd->hts", q.astype(np.float64) * scale, k)
    t = np.arange(len(q))
    distance = t[:, None] - t[None, :]
    scores[:, (distance < 0) | ((distance >= window) if window else False)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hts,shd->thd", weights / weights.sum(-1, keepdims=True), v)


def eight_bits(x: Array, group: int) -> Array:
    """(T, heads, D), rounded to 127 levels of the largest of each `group` channels."""
    padded = np.zeros((*x.shape[:2], up_to(x.shape[2], group)), np.float32)
    padded[..., : x.shape[2]] = x
    groups = padded.reshape(*x.shape[:2], -1, group)
    most = np.abs(groups).max(-1, keepdims=True)
    rounded = np.rint(groups * (np.float32(127) / most)) * (most / np.float32(127))
    return rounded.reshape(padded.shape)[..., : x.shape[2]]


def attention_ops(n_head: int, n_kv_head: int, head_dim: int, window: int, table: Array | None = None) -> list[Op]:
    heads = {"i0": n_head, "i1": n_kv_head, "i2": head_dim, "i3": 1}
    return [
        op(Kind.QKV, dst=0, **heads, table=None if table is None else table.ctypes.data),
        op(Kind.ATTEND, src=0, dst=1, **heads, i4=window, f0=head_dim**-0.5),
    ]


@SETS
@pytest.mark.parametrize(
    ("n_head", "n_kv_head", "head_dim", "window"),
    [(4, 2, 32, 0), (3, 1, 64, 0), (2, 2, 20, 0), (6, 1, 128, 300), (4, 4, 16, 5), (16, 1, 64, 0)],
)
@pytest.mark.parametrize("cache", Cache)
def test_attention_over_blocks_in_chunks(
    kernels: Kernels, n_head: int, n_kv_head: int, head_dim: int, window: int, cache: Cache
) -> None:
    n = 530  # three shares of 256 positions, the last one not full
    qkv = random(n, (n_head + 2 * n_kv_head) * head_dim)
    heads = Heads(n_layers=2, n_kv_heads=n_kv_head, head_dim=head_dim, n_blocks=80, cache=cache)
    ops = attention_ops(n_head, n_kv_head, head_dim, window)
    blocks = np.random.default_rng(3).permutation(80)[: n // 16 + 1].tolist()
    widths = [qkv.shape[1], n_head * head_dim]
    whole = run_rows(kernels, qkv, ops, widths, 1, heads=heads, spans=[(n, 0, blocks)])[:, : n_head * head_dim]
    q, k, v = np.split(qkv.reshape(n, -1, head_dim), [n_head, n_head + n_kv_head], axis=1)
    scale = np.float32(head_dim**-0.5)
    if cache == Cache.F16:
        k, v = (x.astype(np.float16) for x in (k, v))
    if cache == Cache.I8:
        q, k, v = eight_bits(q * scale, 32), eight_bits(k, 32), eight_bits(v, head_dim)
        scale = np.float32(1)
    expected = attention_reference(q, k, v, scale, window).reshape(n, -1)
    # Weights of fifteen bits: of 256 roundings to half a level 1.4e-4 remains.
    tolerance = 5e-4 if cache == Cache.I8 else 2e-5
    assert np.abs(whole - expected).max() < tolerance * np.abs(expected).max() + 1e-6

    # In uneven chunks, the last tokens one by one, on several threads: the same bits.
    table = packed(kernels, Format.F32, Source.F32, qkv, qkv.shape[1])
    identity = packed(
        kernels, Format.F32, Source.F32, np.eye(up_to(widths[1], 32), dtype=np.float32), up_to(widths[1], 32)
    )
    program = [
        op(Kind.EMBED, dst=0, n_out=qkv.shape[1], format=Format.F32, weights=table.ctypes.data, f0=1.0),
        *ops,
        op(
            Kind.MATMUL,
            Flag.LOGITS,
            src=1,
            n_in=up_to(widths[1], 32),
            n_out=up_to(widths[1], 32),
            weights=identity.ctypes.data,
        ),
    ]
    machine = Machine(kernels, program, [up_to(w, 32) for w in widths], rows=n, n_threads=2, heads=heads)
    start = 0
    for length in [1, 17, 100, 3, 140, 200, 61, *[1] * 8]:
        ids = list(range(start, start + length))
        part = machine.run(ids, spans=[(length, start, blocks)], width=up_to(widths[1], 32))
        assert np.array_equal(part[:, : widths[1]], whole[start : start + length]), (start, length)
        start += length
    machine.close()
    assert start == n


@SETS
def test_sequences_of_a_step_do_not_see_each_other(kernels: Kernels) -> None:
    n_head, n_kv_head, head_dim = 4, 2, 32
    qkv = random(60, (n_head + 2 * n_kv_head) * head_dim)
    heads = Heads(n_layers=2, n_kv_heads=n_kv_head, head_dim=head_dim, n_blocks=10)
    ops, widths = attention_ops(n_head, n_kv_head, head_dim, 0), [qkv.shape[1], n_head * head_dim]
    spans = [(20, 0, [7, 2]), (1, 0, [4]), (39, 0, [9, 0, 5])]
    together = run_rows(kernels, qkv, ops, widths, 1, heads=heads, spans=spans)
    for first, last in [(0, 20), (20, 21), (21, 60)]:
        alone = run_rows(kernels, qkv[first:last], ops, widths, 1, heads=heads, spans=[(last - first, 0, [3, 1, 8])])
        assert np.array_equal(alone, together[first:last])


@SETS
@pytest.mark.parametrize("cache", Cache)
def test_long_and_short_sequences_decode_together(kernels: Kernels, cache: Cache) -> None:
    """Few tokens over many positions: their shares are items of their own, for every sequence of the step."""
    n_head, n_kv_head, head_dim = 4, 1, 32
    lengths = [300, 20, 600, 257]
    heads = Heads(n_layers=2, n_kv_heads=n_kv_head, head_dim=head_dim, n_blocks=90, cache=cache)
    ops, width = attention_ops(n_head, n_kv_head, head_dim, 0), n_head * head_dim
    rows = [random(n, (n_head + 2 * n_kv_head) * head_dim, seed=i) for i, n in enumerate(lengths)]
    order = np.random.default_rng(5).permutation(90).tolist()
    blocks = [[order.pop() for _ in range(n // 16 + 1)] for n in lengths]
    table = packed(kernels, Format.F32, Source.F32, np.concatenate(rows), rows[0].shape[1])
    identity = packed(kernels, Format.F32, Source.F32, np.eye(width, dtype=np.float32), width)
    program = [
        op(Kind.EMBED, dst=0, n_out=rows[0].shape[1], format=Format.F32, weights=table.ctypes.data, f0=1.0),
        *ops,
        op(Kind.MATMUL, Flag.LOGITS, src=1, n_in=width, n_out=width, weights=identity.ctypes.data),
    ]
    firsts = np.cumsum([0, *lengths])
    machine = Machine(kernels, program, [rows[0].shape[1], width], rows=600, n_threads=3, heads=heads)
    last = []
    for i, n in enumerate(lengths):
        ids = list(range(firsts[i], firsts[i + 1]))
        last.append(machine.run(ids, spans=[(n, 0, blocks[i])], width=width)[-1])
    for some in ([0, 1], [1, 2, 3], [3, 0], [0, 1, 2, 3], [2]):
        ids = [int(firsts[i + 1]) - 1 for i in some]
        together = machine.run(ids, spans=[(1, lengths[i] - 1, blocks[i]) for i in some], width=width)
        assert np.array_equal(together, np.array([last[i] for i in some])), some
    machine.close()


@SETS
@pytest.mark.parametrize("cache", Cache)
@pytest.mark.parametrize(
    ("n_head", "n_kv_head", "head_dim", "window"), [(9, 3, 64, 0), (4, 2, 20, 300), (16, 1, 32, 0)]
)
def test_parts_of_prompts_beside_answers(
    kernels: Kernels, n_head: int, n_kv_head: int, head_dim: int, window: int, cache: Cache
) -> None:
    """Tiles that look back far are shared out among threads, whatever else a step computes: the bits stay those of a prompt that is
    computed alone, in one step, on one thread."""
    lengths = [300, 20, 800, 257, 530]
    heads = Heads(n_layers=2, n_kv_heads=n_kv_head, head_dim=head_dim, n_blocks=160, cache=cache)
    # Two layers: what one leaves behind of its shares must not disturb the next.
    first_layer = attention_ops(n_head, n_kv_head, head_dim, window)
    ops = [*first_layer, *attention_ops(n_head, n_kv_head, head_dim, 0)]
    for each in ops[len(first_layer) :]:
        each.i3 = 1
    rows = [random(n, (n_head + 2 * n_kv_head) * head_dim, seed=i) for i, n in enumerate(lengths)]
    order = np.random.default_rng(5).permutation(160).tolist()
    blocks = [[order.pop() for _ in range(n // 16 + 1)] for n in lengths]
    width = up_to(n_head * head_dim, 32)
    table = packed(kernels, Format.F32, Source.F32, np.concatenate(rows), rows[0].shape[1])
    identity = packed(kernels, Format.F32, Source.F32, np.eye(width, dtype=np.float32), width)
    program = [
        op(Kind.EMBED, dst=0, n_out=rows[0].shape[1], format=Format.F32, weights=table.ctypes.data, f0=1.0),
        *ops,
        op(Kind.MATMUL, Flag.LOGITS, src=1, n_in=width, n_out=width, weights=identity.ctypes.data),
    ]
    firsts = np.cumsum([0, *lengths])

    def step(machine: Machine, parts: list[tuple[int, int]]) -> Array:
        """(sequence, tokens): the last so many tokens of each."""
        ids = [int(firsts[i + 1]) - n + j for i, n in parts for j in range(n)]
        return machine.run(ids, spans=[(n, lengths[i] - n, blocks[i]) for i, n in parts], width=width)

    widths = [up_to(rows[0].shape[1], 32), width]
    alone = Machine(kernels, program, widths, rows=max(lengths), heads=heads)
    whole = [step(alone, [(i, n)]) for i, n in enumerate(lengths)]
    for n_threads in (2, 5):
        machine = Machine(kernels, program, widths, rows=max(lengths), n_threads=n_threads, heads=heads)
        machine.keys[:], machine.values[:] = alone.keys, alone.values
        for parts in (
            [(0, 1), (2, 3)],
            [(2, 7), (0, 1), (4, 1)],
            [(0, 1), (1, 1), (3, 1), (4, 1), (2, 2)],
            [(4, 13), (2, 40), (1, 20)],
            [(3, 2), (2, 1), (4, 90), (0, 60)],
            [(2, 5)],
        ):
            expected = np.concatenate([whole[i][-n:] for i, n in parts])
            assert np.array_equal(step(machine, parts), expected), (n_threads, parts)
        machine.close()
    alone.close()


@SETS
def test_shares_for_which_there_is_no_room_are_not_split(kernels: Kernels) -> None:
    """A table may name a block twice, so that a sequence is longer than the cache, and than what its shares have room for."""
    n_head, n_kv_head, head_dim, n = 6, 2, 32, 2000
    heads = Heads(n_layers=2, n_kv_heads=n_kv_head, head_dim=head_dim, n_blocks=3)
    ops, widths = (
        attention_ops(n_head, n_kv_head, head_dim, 0),
        [(n_head + 2 * n_kv_head) * head_dim, n_head * head_dim],
    )
    qkv = random(48, widths[0])
    table = packed(kernels, Format.F32, Source.F32, qkv, widths[0])
    identity = packed(kernels, Format.F32, Source.F32, np.eye(widths[1], dtype=np.float32), widths[1])
    program = [
        op(Kind.EMBED, dst=0, n_out=widths[0], format=Format.F32, weights=table.ctypes.data, f0=1.0),
        *ops,
        op(Kind.MATMUL, Flag.LOGITS, src=1, n_in=widths[1], n_out=widths[1], weights=identity.ctypes.data),
    ]
    found = []
    for n_threads in (1, 3):
        machine = Machine(kernels, program, widths, rows=48, n_threads=n_threads, heads=heads)
        machine.run(list(range(48)), spans=[(48, 0, [0, 1, 2])], width=widths[1])
        spans = [(1, n - 1 - i, [0, 1, 2] * (n // 48 + 1)) for i in range(30)]
        found.append(machine.run([47 - i for i in range(30)], spans=spans, width=widths[1]))
        machine.close()
    assert np.isfinite(found[0]).all()
    assert np.array_equal(*found)


@SETS
@pytest.mark.parametrize("head_dim", [20, 32, 64])
def test_norms_of_heads_and_rotation(kernels: Kernels, head_dim: int) -> None:
    n, n_head, n_kv_head = 5, 3, 1
    x = random(n, (n_head + 2 * n_kv_head) * head_dim)
    angles = np.arange(n)[:, None] * 10_000.0 ** -(np.arange(0, head_dim, 2) / head_dim)
    table = np.ascontiguousarray(np.concatenate([np.cos(angles), np.sin(angles)], 1).astype(np.float32))
    q_weight, k_weight = random(head_dim, seed=1), random(head_dim, seed=2)
    qkv = op(
        Kind.QKV, dst=0, i0=n_head, i1=n_kv_head, i2=head_dim, i3=0, f0=1e-6,
        weights=q_weight.ctypes.data, bias=k_weight.ctypes.data, table=table.ctypes.data,
    )  # fmt: skip
    y = run_rows(kernels, x, [qkv], [x.shape[1]], 0, heads=Heads(1, n_kv_head, head_dim, 1))[:, : x.shape[1]]
    heads_ = x.reshape(n, -1, head_dim)
    for h in range(n_head + n_kv_head):
        weight = torch.from_numpy(q_weight if h < n_head else k_weight)
        normed = F.rms_norm(torch.from_numpy(heads_[:, h]), (head_dim,), weight, 1e-6).numpy()
        a, b = np.split(normed, 2, axis=1)
        c, s = np.cos(angles), np.sin(angles)
        expected = np.concatenate([a * c - b * s, b * c + a * s], 1)
        assert np.allclose(y[:, h * head_dim : (h + 1) * head_dim], expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(y[:, (n_head + n_kv_head) * head_dim :], x[:, (n_head + n_kv_head) * head_dim :])


@SETS
def test_adapters_are_added_to_their_own_sequences(kernels: Kernels) -> None:
    n_in, n_out, rank = 40, 48, 5
    x, weights, a, b = (
        random(7, n_in),
        random(n_out, n_in, seed=1),
        random(rank, n_in, seed=2),
        random(rank, 20, seed=3),
    )
    place = packed(kernels, Format.F32, Source.F32, weights, n_in)
    product = op(Kind.MATMUL, src=0, dst=1, n_in=n_in, n_out=n_out, weights=place.ctypes.data, lora=3)
    part = LoRA(product=3, row=17, n_in=n_in, n_out=20, rank=rank, scale=0.5, a=a.ctypes.data, b=b.ctypes.data)

    def load(machine: Machine) -> None:
        assert kernels.c.cw_set_adapter(machine.engine, 1, ctypes.byref(part), 1) == 0

    spans = [(3, 0, [0]), (4, 0, [0])]
    y = run_rows(kernels, x, [product], [n_in, n_out], 1, before=load, spans=spans, adapters=[1, -1])[:, :n_out]
    expected = x @ weights.T
    expected[:3, 17:37] += 0.5 * (x[:3] @ a.T) @ b
    assert np.allclose(y, expected, rtol=1e-4, atol=1e-4)


@SETS
def test_steps_that_do_not_fit_are_refused(kernels: Kernels) -> None:
    table = packed(kernels, Format.F32, Source.F32, random(4, 32), 32)
    ops = [op(Kind.EMBED, dst=0, n_out=32, weights=table.ctypes.data, f0=1.0)]
    machine = Machine(kernels, ops, [32], rows=4)
    for spans in ([(5, 0, [0])], [(2, 0, [0]), (3, 0, [0])], [(1, 0, [1])], [(1, 16, [0, -1])]):
        with pytest.raises(AssertionError):
            machine.run([0] * sum(n for n, _, _ in spans), spans=spans, width=32)
    machine.close()


def test_operations_that_are_not_known_are_refused() -> None:
    for bad in (
        op(Kind.MATMUL, src=0, dst=0, n_in=64, n_out=16, weights=1),
        op(Kind.NORM, src=0, dst=7, n_out=16, weights=1),
        Op(kind=99),
    ):
        with pytest.raises(AssertionError, match="refused the program"):
            Machine(KERNELS[0], [bad], [32], rows=1)


def test_a_library_that_is_not_ours_or_of_another_version_means_pytorch_and_a_sentence(tmp_path: Path) -> None:
    path = library_path()
    assert path is not None
    unknown = open_library(path, "mmx")
    assert isinstance(unknown, Unavailable)
    assert "only" in unknown.reason
    broken = tmp_path / "libchatwright_kernels.so"
    broken.write_bytes(b"not a library")
    assert isinstance(open_library(broken), Unavailable)
    compiler = shutil.which("c++")
    assert compiler, "the kernels were compiled here, so a compiler is here"
    source = tmp_path / "stale.cpp"
    source.write_text('extern "C" int cw_abi() { return 999; }')
    stale = tmp_path / "stale.so"
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(stale)], check=True)
    found = open_library(stale)
    assert isinstance(found, Unavailable)
    assert "999" in found.reason
    assert "install" in found.reason
