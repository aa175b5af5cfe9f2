"""Near duplicates are found, the first stays, and nothing depends on what a text happens to lie beside."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwright.text.characters import CharacterTexts
from chatwright.text.components import Components
from chatwright.text.shingles import N_BANDS, shingle, sign, similarity
from chatwright.text.split import held_out_clusters, target

TEXTS = st.lists(st.text(alphabet="abc de你好世 界1.,-é", max_size=30), max_size=6)
PAIRS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40)


@given(texts=TEXTS, length=st.integers(1, 5))
@settings(deadline=None)
def test_shingles_of_a_text_do_not_depend_on_its_neighbours(texts: list[str], length: int) -> None:
    together = shingle(CharacterTexts.of(texts), length)
    for number, text in enumerate(texts):
        alone = shingle(CharacterTexts.of([text]), length)
        own = together.hashes[together.offsets[number] : together.offsets[number + 1]]
        assert own.tolist() == alone.hashes.tolist()


@given(words=st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta"]), min_size=1, max_size=12))
def test_shingles_are_those_of_the_words(words: list[str]) -> None:
    n = 3
    found = shingle(CharacterTexts.of([" -- ".join(words).upper()]), n).hashes.tolist()
    expected = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)] or [tuple(words)]
    assert len(found) == len(expected)
    assert len(set(found)) == len(set(expected))


def test_shingles_do_not_depend_on_how_much_text_stands_before() -> None:
    text = "The cat sat on the mat, and the dog beside it. " + "long" * 100
    alone = shingle(CharacterTexts.of([text]), 3).hashes
    for n_before in (100, 1 << 20, 3 << 20):
        both = shingle(CharacterTexts.of(["word " * (n_before // 4), text]), 3)
        np.testing.assert_array_equal(both.hashes[both.offsets[1] :], alone)


def test_the_estimate_is_near_the_true_similarity() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(3000)]
    texts, true = [], []
    for share in np.linspace(0.3, 1, 30):
        common = rng.choice(words, 400).tolist()
        n_own = round(400 * (1 - share) / 2)
        a, b = [[*common, *rng.choice(words, n_own).tolist()] for _ in range(2)]
        sets = [{tuple(text[i : i + 5]) for i in range(len(text) - 4)} for text in (a, b)]
        texts += [" ".join(a), " ".join(b)]
        true.append(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
    signatures = sign(shingle(CharacterTexts.of(texts), 5))
    estimated = similarity(signatures.low_bytes[::2], signatures.low_bytes[1::2])
    errors = np.abs(estimated - np.array(true))
    assert errors.max() < 0.15
    assert errors.mean() < 0.04
    candidates = (signatures.bands[:, ::2] == signatures.bands[:, 1::2]).any(axis=0)
    assert signatures.bands.shape == (N_BANDS, 60)
    assert candidates[np.array(true) > 0.8].all()


@given(pairs=PAIRS, cuts=st.integers(1, 40))
def test_components_are_those_of_the_graph_with_the_smallest_row_as_root(
    pairs: list[tuple[int, int]], cuts: int
) -> None:
    components = Components(20)
    for first in range(0, len(pairs), cuts):
        left, right = np.array(pairs[first : first + cuts], np.int64).reshape(-1, 2).T
        components.join(left, right)
    naive = list(range(20))
    for _ in range(20):
        for a, b in pairs:
            naive[a] = naive[b] = min(naive[a], naive[b])
    assert components.labels().tolist() == naive


@given(
    sizes=st.lists(st.integers(1, 50), max_size=60),
    wanted=st.floats(0, 500),
    seed=st.integers(0, 3),
)
def test_what_is_held_out_is_some_but_not_all_and_about_as_much_as_wanted(
    sizes: list[int], wanted: float, seed: int
) -> None:
    keys = np.random.default_rng(len(sizes)).integers(0, 2**63, (len(sizes), 2), dtype=np.uint64)
    chosen = held_out_clusters(np.array(sizes, np.int64), keys, wanted, seed)
    held = sum(size for size, out in zip(sizes, chosen, strict=True) if out)
    if len(sizes) < 2 or wanted == 0:
        assert not chosen.any()
        return
    assert 0 < chosen.sum() < len(sizes)
    assert held <= max(wanted, min(sizes))


def test_the_default_share_has_bounds() -> None:
    assert target("documents", None, 1_000_000, 10_000_000_000) == (20_000_000, True)
    assert target("conversations", None, 1000, 1) == (50, False)
    assert target("conversations", None, 200, 1) == (20, False)
    assert target("conversations", None, 10, 1) == (2, False)
    assert target("conversations", None, 2, 1)[0] == 1
    assert target("documents", 0.2, 7, 1000) == (200, True)
