"""A tiny model folder whose answers look like text: random attention above the bigrams of a small text in four scripts."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from chatwright.model.config import ModelConfig
from chatwright.model.gpt import GPT
from chatwright.model.load import load_model
from chatwright.model.lora import LoraConfig, add_lora, save_adapter
from chatwright.model.save import save_model

CONTEXT = 512
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCAB = 384
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = [
    "The capital of France is Paris. The capital of Japan is Tokyo. The cat sat on the mat, and the dog did not.",
    "你好，世界！我们今天去北京，明天去上海。猫坐在垫子上，狗没有。天气很好，我们很高兴。",
    "Привет, мир! Кошка сидит на окне. Ёжик в тумане.",
    "def add(a, b):\n    return a + b\n\n\nprint(add(1, 2))  # 3\n",
    "Smile 🙂🎉🚀, café, naïve, Zürich; 東京とパリ。 🙂🙂 🎉",
]


def make_model_folder(folder: Path, *, context: int = CONTEXT, template: str = TEMPLATE) -> Path:
    """A folder as `pull` would leave it. Most Chinese characters and emoji are several tokens: the vocabulary is small."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=list(SPECIALS), initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(TEXT * 2, trainer)
    assert tokenizer.get_vocab_size() == VOCAB

    save_model(_bigram_model(tokenizer, context), folder, extra={"eos_token_id": tokenizer.token_to_id("<|im_end|>")})
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(template)
    return folder


def make_adapter(base: Path, folder: Path, seed: int, base_name: str = "tiny") -> Path:
    """An adapter of the model in `base` that changes what it says; each seed another one."""
    model = load_model(base)
    config = LoraConfig(r=4)
    add_lora(model, config, seed=0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    save_adapter(model, config, folder, base_name)
    return folder


def _bigram_model(tokenizer: Tokenizer, context: int) -> GPT:
    """Embeddings are one-hot and the head holds bigram log probabilities; random layers between make the context matter."""
    torch.manual_seed(0)
    config = ModelConfig(
        family="llama",
        vocab_size=VOCAB,
        n_layer=2,
        d_model=VOCAB,
        n_head=4,
        n_kv_head=2,
        head_dim=16,
        d_ff=64,
        context_length=context,
        norm="rmsnorm",
        norm_eps=1e-6,
        positions="rotary",
        activation="silu",
        gated=True,
    )
    model = GPT(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.003 if "out" in name or "down" in name else 0.1)
    counts: Counter[tuple[int, int]] = Counter()
    end = tokenizer.token_to_id("<|im_end|>")
    for text in TEXT:
        ids = [*tokenizer.encode(text).ids, end]
        counts.update(pairwise(ids))
    bigrams_VV = torch.zeros(VOCAB, VOCAB)
    for (first, second), count in counts.items():
        bigrams_VV[second, first] = 2.0 + torch.log(torch.tensor(float(count)))
    model.embed.weight.copy_(torch.eye(VOCAB))
    assert model.head is not None
    # After the last norm a one-hot vector has length sqrt(d_model): the bigram's logit is about 10.
    model.head.weight.copy_(0.25 * bigrams_VV + 0.05 * torch.randn(VOCAB, VOCAB))
    return model
