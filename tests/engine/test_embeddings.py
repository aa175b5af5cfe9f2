"""Texts become the vectors that the reference gives: by an encoder in batches, by a decoder as the mean of its hidden states."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertModel

from chatwright.engine.embedding import EmbeddingModel
from chatwright.engine.encoder_engine import MAX_BATCH_TOKENS, EncoderEngine
from chatwright.engine.encoder_runner import EncoderRunner
from chatwright.engine.load import load_text_model
from chatwright.engine.opened import open_model
from chatwright.engine.process.memory import MemoryBudget
from chatwright.engine.process.supervised import in_processes
from chatwright.engine.protocol import GenerateRequest, SamplingParams
from chatwright.engine.text import TextModel, TextRequest
from chatwright.errors import EngineError, InvalidModelError, InvalidRequestError, OverloadedError
from chatwright.model.encoder import Encoder
from chatwright.model.encoder_config import EncoderConfig
from chatwright.model.pooling import Pooling, read_pooling
from chatwright.settings import Settings
from tests.server.tiny import make_model_folder

SETTINGS = Settings(device="cpu", threads=1, quantization="fp32")
SENTENCES = [
    "A cat sits on the mat.",
    "The kitten is resting on a rug!",
    "股市今天大涨，投资者很高兴。",
    "Ünïcödé, emoji 🙂 and\ttabs; unaffordableness, zzzzqqqqxxxx",
    "",
    "word " * 200,
]


@pytest.fixture(scope="module")
def expected(minilm: Path) -> torch.Tensor:
    """What sentence-transformers computes: BERT, the mean of its tokens, scaled to length one."""
    theirs = BertModel.from_pretrained(minilm).eval()
    batch = AutoTokenizer.from_pretrained(minilm)(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = theirs(**batch).last_hidden_state
    weights = batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1))


@pytest.fixture
async def model(minilm: Path) -> AsyncIterator[TextModel]:
    loaded = load_text_model(minilm, "minilm:l6", SETTINGS)
    yield loaded
    await loaded.close()


def cosines(vectors: Sequence[list[float]], expected: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(torch.tensor(vectors), expected)


async def test_embeddings_are_those_of_the_reference(model: TextModel, expected: torch.Tensor) -> None:
    assert isinstance(model, EmbeddingModel)
    embedded = await model.embed(SENTENCES)
    assert cosines(embedded.vectors, expected).min() > 0.99999
    torch.testing.assert_close(torch.tensor(embedded.vectors), expected, atol=1e-5, rtol=0)
    assert embedded.n_tokens == sum([len(await model.encode(text)) for text in SENTENCES])
    cat, kitten, market = torch.tensor(embedded.vectors[:3])
    assert cat @ kitten > 0.5 > cat @ market


async def test_an_encoder_in_a_process_of_its_own_embeds_the_same(minilm: Path, expected: torch.Tensor) -> None:
    opened = open_model(minilm, "minilm:l6", SETTINGS)
    [model] = in_processes([opened], SETTINGS, MemoryBudget(10**12, firm=False))
    try:
        await model.engine.ready()
        assert cosines((await model.embed(SENTENCES)).vectors, expected).min() > 0.99999
        with pytest.raises(InvalidRequestError, match="257 tokens"):
            await model.engine.embed([101] * 257)
    finally:
        await model.close()


async def test_a_decoder_embeds_by_the_mean_of_its_hidden_states(tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "tiny")
    model = load_text_model(folder, "tiny", SETTINGS)
    try:
        embedded = await model.embed(["The cat sat on the mat.", "你好"])
    finally:
        await model.close()
    theirs = AutoModel.from_pretrained(folder).eval()
    for text, vector in zip(["The cat sat on the mat.", "你好"], embedded.vectors, strict=True):
        ids = torch.tensor([model.tokenizer.encode(text)])
        with torch.no_grad():
            mean = theirs(ids).last_hidden_state[0].mean(0)
        assert torch.nn.functional.cosine_similarity(torch.tensor(vector), mean, dim=0) > 0.99999


async def test_a_text_too_long_is_refused_and_never_cut(model: TextModel) -> None:
    assert model.context_length == 256  # the longest of its training, though BERT has 512 positions
    assert len((await model.embed(["word " * 254])).vectors) == 1
    with pytest.raises(
        InvalidRequestError, match=r"maximum context length is 256 tokens.*257 in your prompt"
    ) as caught:
        await model.embed(["short", "word " * 255])
    assert (caught.value.param, caught.value.code) == ("input", "context_length_exceeded")
    with pytest.raises(InvalidRequestError, match=r"maximum context length is 256"):
        await model.embed(["word " * 1_000_000])  # within the second that pytest shows, without tokenising it
    with pytest.raises(InvalidRequestError, match="257 tokens, and this model reads 256"):
        await model.engine.embed([101] * 257)


async def test_it_writes_nothing(model: TextModel) -> None:
    request = TextRequest(await model.encode("Once"), SamplingParams())
    with pytest.raises(InvalidRequestError, match="minilm:l6 turns texts into vectors"):
        await anext(model.generate(request))
    with pytest.raises(InvalidRequestError, match="minilm:l6 turns texts into vectors"):
        await model.encode_chat([{"role": "user", "content": "Hi"}])
    with pytest.raises(InvalidRequestError, match="turns texts into vectors"):
        await anext(model.engine.generate(GenerateRequest("1", [1], SamplingParams())))
    with pytest.raises(InvalidRequestError, match="turns texts into vectors"):
        await model.engine.score([1, 2])


async def test_pieces_spell_the_text(model: TextModel) -> None:
    assert model.tokenizer.decode(await model.encode("The unaffordable Café")) == "the unaffordable cafe"


class Recording:
    """An encoder that notes the sizes of its batches, waits to be let go, and cannot bear the token 13."""

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        torch.manual_seed(0)
        config = EncoderConfig(vocab_size=50, n_layer=1, d_model=16, n_head=2, d_ff=32, context_length=600)
        self.runner = EncoderRunner(Encoder(config).eval(), Pooling())
        self.sizes: list[int] = []

    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        self.sizes.append(len(batch))
        if any(13 in ids for ids in batch):
            raise RuntimeError("out of memory")
        return self.runner.embed(batch)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., tuple[EncoderEngine, Recording]]]:
    engines = []

    def engine(max_queue: int = 256) -> tuple[EncoderEngine, Recording]:
        recording = Recording()
        engines.append(EncoderEngine(recording, max_context=600, max_queue=max_queue))
        return engines[-1], recording

    yield engine
    for opened in engines:
        await opened.close()


async def test_texts_that_wait_together_share_batches(make: Callable[..., tuple[EncoderEngine, Recording]]) -> None:
    engine, recording = make()
    texts = [[1 + n % 12] * (n % 40 + 1) for n in range(200)]
    vectors = await asyncio.gather(*(engine.embed(ids) for ids in texts))
    assert len(recording.sizes) < 30
    assert sum(recording.sizes) == 200
    for ids, vector in zip(texts, vectors, strict=True):
        torch.testing.assert_close(
            torch.tensor(vector), torch.tensor(recording.runner.embed([ids])[0]), atol=1e-5, rtol=0
        )
    recording.sizes.clear()
    await asyncio.gather(*(engine.embed([2] * 600) for _ in range(20)))
    assert max(recording.sizes) <= MAX_BATCH_TOKENS // 600
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.alive) == (0, 0, True)
    assert await engine.probe() < 5


async def test_a_text_that_fails_fails_alone(make: Callable[..., tuple[EncoderEngine, Recording]]) -> None:
    engine, _ = make()
    results = await asyncio.gather(*(engine.embed([token]) for token in (1, 13, 2)), return_exceptions=True)
    assert isinstance(results[1], EngineError)
    assert isinstance(results[0], list)
    assert isinstance(results[2], list)


async def test_a_full_queue_refuses_and_a_closed_engine_leaves_nobody_waiting(
    make: Callable[..., tuple[EncoderEngine, Recording]],
) -> None:
    engine, _ = make(max_queue=5)
    results = await asyncio.gather(*(engine.embed([1] * 500) for _ in range(200)), return_exceptions=True)
    assert any(isinstance(result, OverloadedError) for result in results)
    assert any(isinstance(result, list) for result in results)
    waiting = [asyncio.ensure_future(engine.embed([2])) for _ in range(3)]
    await asyncio.sleep(0)
    await engine.close()
    done = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert all(isinstance(result, list | EngineError) for result in done)
    with pytest.raises(EngineError, match="stopped"):
        await engine.embed([1])


def change(minilm: Path, folder: Path, file: str, **changes: object) -> Path:
    """A copy of the folder without its weights, one of its settings changed."""
    shutil.copytree(minilm, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | changes))
    return folder


def test_pooling_is_the_folders_own(minilm: Path, tmp_path: Path) -> None:
    assert read_pooling(minilm) == Pooling("mean", normalize=True, max_tokens=256)
    flags = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    assert read_pooling(change(minilm, tmp_path / "a", "1_Pooling/config.json", **flags)).mode == "cls"
    newer = change(minilm, tmp_path / "b", "1_Pooling/config.json", pooling_mode="max")
    assert read_pooling(newer).mode == "max"
    modules = json.loads((newer / "modules.json").read_text())[:2]
    (newer / "modules.json").write_text(json.dumps(modules))
    assert read_pooling(newer) == Pooling("max", normalize=False, max_tokens=256)
    (newer / "modules.json").unlink()
    assert read_pooling(newer) == Pooling()


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling_mode to"),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "pooling_mode to 'lasttoken'"),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "max_seq_length to 'long'"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case to True"),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "default_prompt_name to 'query'"),
    ],
)
def test_a_pooling_computed_otherwise_here_is_refused(
    file: str, changes: dict[str, object], reason: str, minilm: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidModelError, match=reason):
        read_pooling(change(minilm, tmp_path / "changed", file, **changes))


@pytest.mark.parametrize(
    "modules",
    [
        {},
        [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}],
        [{"type": "sentence_transformers.models.Pooling", "path": "../../etc"}],
        [7],
        [{"type": "a.Normalize"}],
    ],
)
def test_modules_that_are_no_list_of_modules_here_are_refused(modules: object, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InvalidModelError, match=r"modules\.json"):
        read_pooling(tmp_path)


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_padding_changes_no_vector(mode: str) -> None:
    runner = Recording().runner
    runner.pooling = Pooling(mode, normalize=True)  # type: ignore[arg-type]
    texts = [[1, 2, 3], [4] * 30, [5]]
    together = torch.tensor(runner.embed(texts))
    alone = torch.tensor([runner.embed([ids])[0] for ids in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
