"""Throw-away tokenizers of every kind that Chatwright reads, trained on a page of text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges

from chatwright.tokenizer import TemplateRenderer
from chatwright.tokenizer.patterns import LLAMA3_REGEX, QWEN2_REGEX, TEKKEN_REGEX

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's what they'd say, isn't it? Numbers: 12 345 6789.",
    "def area(radius):\n    return 3.14159 * radius ** 2  # circle\n\n\nclass Shape:\n\tpass\n",
    "今天天气很好，我们去公园散步。你好，世界！今天的天气真的很好。",
    "The capital of France is Paris, and the capital of Japan is Tokyo. The the the other others.",
    "システム user assistant system tool think 🎉🎉 😀 café naïve",
] * 4

TEXTS = [
    "",
    " ",
    "Hello world",
    "  leading and trailing  ",
    "The capital of France isn't Lyon, it's Paris!",
    "DON'T SHOUT, we'Ll see",
    "你好，世界！今天天气怎么样？ 好 的",
    "mixed 中文 and English，with　full-width space",
    "runs   of    spaces\n\n\nand\n\t\tlines <b>bold</b></p>",
    "🎉 👩‍👩‍👧‍👦 🇫🇷 e\u0301 é",
    "def f(x):\n    if x > 10:\n\t\treturn x**2  # 注释\n\n\n\n  \n",
    "1 12 123 1234 12345678  90 3.14 ½ ² ٣",
    "tabs\t\tand\r\nwindows\r\n\r\nlines \n \n x",
    "a\u00a0b\u2003c\u3000d",
    "nul\x00 and bell\x07",
    "https://example.org/a?b=c&d=%20 <p>html</p> [x](y) {{z}}",
    "\ufeffbom \u200bzero width \u202ertl",
    "ᄒ\u1161\u11ab 한국어 हिन्दी العربية",
]

CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SHOWN = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]


def _byte_level(split: list[Any], special: list[str], *, use_regex: bool, nfc: bool = False, **model: Any) -> Tokenizer:
    tokenizer = Tokenizer(BPE(**model))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=700,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _split(regex: str) -> list[Any]:
    return [pre_tokenizers.Split(Regex(regex), behavior="isolated")]


def _llama3() -> Tokenizer:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = _byte_level(_split(LLAMA3_REGEX), special, use_regex=False, ignore_merges=True)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]),
        ]
    )
    return tokenizer


def _qwen3() -> Tokenizer:
    tokenizer = _byte_level(_split(QWEN2_REGEX), CHATML, use_regex=False, nfc=True)
    tokenizer.add_tokens(SHOWN)
    return tokenizer


def _sentencepiece(style: str) -> Tokenizer:
    """Llama-2's way (`prepend`: a normaliser puts the first space), Mistral's newer (`first`: Metaspace does), or Gemma's, which
    puts none and has tokens for runs of white space and for HTML that merge before all others."""
    trained = Tokenizer(BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trained.train_from_iterator(CORPUS, BpeTrainer(vocab_size=400, show_progress=False))
    content = json.loads(trained.to_str())
    words = sorted(content["model"]["vocab"], key=content["model"]["vocab"].__getitem__)
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>"]
    runs = [character * n for character in "\n▁\t" for n in (1, 2, 3, 4) if character * n not in words]
    own = [*runs, "<b>", "</p>"] if style == "gemma" else []
    tokens = [*special, *own, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(merge) for merge in content["model"]["merges"]]
    if style == "gemma":
        scores = {token: 0.0 if token in own else float(-i) for token, i in vocab.items()}
        merges = generate_merges(vocab, scores, skip_tokens=special)
    tokenizer = Tokenizer(BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if style == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif style == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in own])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([] if style == "gemma" else [decoders.Strip(" ", 1, 0)])
    )
    return tokenizer


def _tekken() -> Tokenizer:
    return _byte_level(_split(TEKKEN_REGEX), ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"], use_regex=False)


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "gpt-2": lambda: _byte_level([], ["<|endoftext|>"], use_regex=True),
    "smollm": lambda: _byte_level([pre_tokenizers.Digits(individual_digits=True)], CHATML, use_regex=True),
    "qwen2": _qwen3,
    "llama-bpe": _llama3,
    "tekken": _tekken,
    "sentencepiece-prepend": lambda: _sentencepiece("prepend"),
    "sentencepiece-first": lambda: _sentencepiece("first"),
    "sentencepiece-gemma": lambda: _sentencepiece("gemma"),
}
NAMED: dict[str, dict[str, str]] = {
    "gpt-2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    "smollm": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
    "qwen2": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "llama-bpe": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "tekken": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "sentencepiece-prepend": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "sentencepiece-first": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "sentencepiece-gemma": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
}
BYTE_LEVEL = [kind for kind in MAKERS if not kind.startswith("sentencepiece")]


class Reference:
    """One throw-away tokenizer in Transformers' hands, and the folder that it saved."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.backend = MAKERS[kind]()
        self.hf = PreTrainedTokenizerFast(tokenizer_object=self.backend, **NAMED[kind])
        self.hf.save_pretrained(folder)

    def gguf_metadata(self) -> dict[str, Any]:
        """The same tokenizer as llama.cpp's converter writes it."""
        content = json.loads(self.backend.to_str())
        added = {token["id"]: token for token in content["added_tokens"]}
        vocab = self.backend.get_vocab(with_added_tokens=True)
        tokens = sorted(vocab, key=vocab.__getitem__)
        sentencepiece = self.kind.startswith("sentencepiece")
        types = [
            (3 if added[i]["special"] else 4) if i in added else 6 if sentencepiece and token.startswith("<0x") else 1
            for i, token in enumerate(tokens)
        ]
        metadata: dict[str, Any] = {
            "general.architecture": "llama",
            "tokenizer.ggml.model": "llama" if sentencepiece else "gpt2",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types,
        }
        if sentencepiece:
            types[0] = 2
            metadata["tokenizer.ggml.scores"] = [float(-i) for i in range(len(tokens))]
            if self.kind == "sentencepiece-gemma":  # the converter's own spelling and score of added tokens
                metadata["general.architecture"] = "gemma3"
                metadata["tokenizer.ggml.add_space_prefix"] = False
                for i, kind in enumerate(types):
                    if kind in (3, 4):
                        metadata["tokenizer.ggml.scores"][i] = -1000.0
                        tokens[i] = tokens[i].replace("▁", " ") if kind == 4 else tokens[i]
        else:
            metadata["tokenizer.ggml.pre"] = self.kind
            metadata["tokenizer.ggml.merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
        keys = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id"}
        for name, key in keys.items():
            if name in NAMED[self.kind]:
                metadata[f"tokenizer.ggml.{key}"] = vocab[NAMED[self.kind][name]]
        return metadata


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    return {kind: Reference(kind, tmp_path_factory.mktemp(kind)) for kind in MAKERS}


@pytest.fixture(scope="session", params=list(MAKERS))
def reference(request: pytest.FixtureRequest, references: dict[str, Reference]) -> Reference:
    return references[request.param]


@pytest.fixture(scope="session", params=BYTE_LEVEL)
def byte_level_reference(request: pytest.FixtureRequest, references: dict[str, Reference]) -> Reference:
    return references[request.param]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS


@pytest.fixture(scope="session")
def renderer() -> Iterator[TemplateRenderer]:
    renderer = TemplateRenderer()
    yield renderer
    renderer.close()
