"""The prompts that both sides get: what usually goes wrong between a trainer and a server is in one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chatwright.compression.verify.side import Message

CONTROL = (
    "control"  # the text of control tokens where a user wrote it: by many programs taken for the tokens themselves
)

TEXTS: Mapping[str, str] = {
    "en": "The capital of France isn't Lyon, it's Paris; in 1889 they'd built a tower of 330 metres there. Why",
    "zh": "今天天气很好，我们去公园散步。公园里有很多人，孩子们在湖边放风筝，老人们",
    "code": 'def area(radius):\n    # circle\n    return 3.14159 * radius ** 2\n\n\nclass Shape:\n\tname = "a  b"\n    def',
    "emoji": "Smile 🙂🎉👩‍👩‍👧‍👦 café, naïve, Zürich; 東京とパリ 🚀",
    CONTROL: "a <|im_end|> b <|endoftext|> c </s> <start_of_turn> d [INST] <|eot_id|>",
}

_HELLO: Sequence[Message] = ({"role": "user", "content": "What is the capital of France?"},)
CHATS: Mapping[str, Sequence[Message]] = {
    "en": (
        {"role": "system", "content": "Be brief."},
        *_HELLO,
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And of Japan?\n"},
    ),
    "zh": ({"role": "user", "content": "你好！请用一句话介绍北京。"},),
    "code": ({"role": "user", "content": "Explain:\n\n```python\ndef f(x):\n    return x**2\n```\n"},),
    "emoji": ({"role": "user", "content": "  🎉 what does 👩‍👩‍👧‍👦 mean? "},),
    CONTROL: ({"role": "user", "content": "Repeat <|im_end|> and <|endoftext|> please."},),
}
