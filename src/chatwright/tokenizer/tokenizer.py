"""One tokenizer: text to ids, ids to bytes and text, with control tokens kept apart from text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import tokenizers

from chatwright.errors import InvalidModelError, InvalidRequestError
from chatwright.tokenizer.bound import TokenBound
from chatwright.tokenizer.control import ControlToken, ControlTokens, is_control_like
from chatwright.tokenizer.pipeline import (
    AddedToken,
    BpeFile,
    adopt_pipeline,
    as_continuation,
    build_backend,
    bytes_to_characters,
    steps,
    without_tokens,
)
from chatwright.tokenizer.stream import StreamDecoder

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """Byte-level or SentencePiece-like BPE, on the `tokenizers` library.

    vocab_size: highest id + 1. bos_id: the token a text starts with, if the model has one. eos_ids: every token that
    ends an answer. special_ids: text → id of every control token, also of those that are shown as text (`<think>`).
    hidden_ids: the control tokens that stand for no text.
    """

    def __init__(self, file: BpeFile) -> None:
        alphabet = bytes_to_characters()
        byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
        covers_bytes = all(
            token in file.vocab for token in (alphabet.values() if file.byte_level else byte_tokens)
        ) and (file.byte_level or file.byte_fallback)
        control = [token for token in file.added_tokens if is_control_like(token.text, special=token.special)]
        # A one-character "control" token in the byte alphabet is how that byte is written; it cannot be taken away.
        base = frozenset(alphabet.values()) if file.byte_level else frozenset(byte_tokens)
        control = [token for token in control if token.text not in base]
        controlled = {token.id for token in control}
        content = [token for token in file.added_tokens if token.id not in controlled]

        removed = frozenset(token.text for token in control)
        if covers_bytes:
            file = replace(file, unk_token=None)
        if file.unk_token is not None and file.unk_token not in file.vocab:
            raise InvalidModelError(
                "{source}: the unknown token {token} is not in the vocabulary.",
                source=file.source,
                token=repr(file.unk_token)[:80],
            )
        vocab, merges = without_tokens(file.vocab, file.merges, removed - {file.unk_token or ""})
        vocab |= {token.text: token.id for token in content}
        self._backend = build_backend(file, vocab, merges)
        self._continuation: tokenizers.Tokenizer | None = None
        if (pre_tokenizer := as_continuation(file.pre_tokenizer)) is not None:
            parts = build_backend(replace(file, pre_tokenizer=pre_tokenizer, unk_token=None), {}, [])
            self._continuation = tokenizers.Tokenizer(self._backend.model)
            adopt_pipeline(self._continuation, parts)
        for backend in (self._backend, self._continuation):
            if backend is not None and content:
                backend.add_tokens([_library_token(token) for token in content])

        self.control = ControlTokens(
            ControlToken(token.text, token.id, token.lstrip, token.rstrip, token.single_word, token.special)
            for token in control
        )
        self.special_ids: Mapping[str, int] = MappingProxyType({token.text: token.id for token in control})
        self.hidden_ids = frozenset(token.id for token in control if token.special)
        self.bos_id = file.bos_id
        self.byte_level = file.byte_level
        self._prefix_ids, self._suffix_ids = file.prefix_ids, file.suffix_ids
        self._strip_leading_space = file.strip_leading_space
        self._bytes = _token_bytes(file, vocab, self.hidden_ids)
        self.vocab_size = len(self._bytes)
        self.eos_ids = frozenset(token_id for token_id in file.eos_ids if token_id < self.vocab_size)
        # Without a token for every byte, a SentencePiece-like model turns whole runs of characters into one unknown token.
        counts = (file.byte_level or covers_bytes) and all(_keeps_text(step) for step in steps(file.pre_tokenizer))
        self._bound = TokenBound(self._bytes) if counts else None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of `text`. The text of a control token is ordinary text; BOS and EOS come where the model wants them.

        Raises InvalidRequestError on lone surrogates, which no UTF-8 can hold.
        """
        check_text(text)
        ids = _ids(self._backend, text)
        return [*self._prefix_ids, *ids, *self._suffix_ids] if add_special_tokens else ids

    def encode_segments(self, segments: Iterable[str | int]) -> list[int]:
        """Ids of a prompt given as texts and control ids in order, as if it had been one text; adds no BOS or EOS."""
        return self.encode_prompts([segments])[0]

    def encode_prompts(self, prompts: Iterable[Iterable[str | int]], *, continuing: bool = False) -> list[list[int]]:
        """`encode_segments` of many prompts, each text that several have in common only once. `continuing`: none of them
        begins a text.
        """
        lists = [list(prompt) for prompt in prompts]
        heads = {segments[0] for segments in lists if segments and not continuing}
        rest = {segment for segments in lists for segment in segments[0 if continuing else 1 :]}
        known = [_ids_of(self._backend, heads), _ids_of(self._continuation or self._backend, rest)]
        return [
            [i for place, segment in enumerate(segments) for i in known[bool(place) or continuing][segment]]
            for segments in lists
        ]

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes a token stands for; b"" for hidden control tokens and for ids that no token has."""
        return self._bytes[token_id] if 0 <= token_id < len(self._bytes) else b""

    def decode(self, ids: Iterable[int], *, continuing: bool = False) -> str:
        """Text of `ids`: hidden control tokens are skipped, invalid UTF-8 becomes U+FFFD, an incomplete last character
        is dropped. `continuing` keeps the first space of SentencePiece-like models: the text goes on from a prompt.
        """
        stream = self.stream(continuing=continuing)
        return "".join(map(stream.push, ids)) + stream.flush()

    def stream(self, *, continuing: bool = False) -> StreamDecoder:
        """A decoder for one answer, token by token; joined, it says what `decode` says."""
        return StreamDecoder(self, strip_leading_space=self._strip_leading_space and not continuing)

    def min_tokens_lower_bound(self, text: str) -> int:
        """A number of tokens that `text` certainly needs at least, in a few passes over its bytes; 0 where that is unknown."""
        if self._bound is None:
            return 0
        check_text(text)
        text = self.normalized(text)
        return self._bound.at_least((text if self.byte_level else text.replace("▁", " ")).encode())

    def normalized(self, text: str) -> str:
        """`text` as it is before it is cut; lone surrogates become U+FFFD."""
        normalizer = self._backend.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def definition(self) -> dict[str, Any]:
        """What text is encoded with, as tokenizer.json writes it: without control tokens and tokens around a text."""
        definition: dict[str, Any] = json.loads(self._backend.to_str())
        return definition


def _ids(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    # A batch of one, as only `encode_batch…` releases the GIL: `encode` of a megabyte, though in a thread, would hold up the event
    # loop for seconds.
    ids: list[int] = backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
    return ids


def _ids_of(backend: tokenizers.Tokenizer, segments: Iterable[str | int]) -> dict[str | int, list[int]]:
    """The ids of texts; a control id stands for itself."""
    ids: dict[str | int, list[int]] = {"": []}
    texts = []
    for segment in segments:
        if isinstance(segment, int):
            ids[segment] = [segment]
        elif segment:
            check_text(segment)
            texts.append(segment)
    encodings = backend.encode_batch_fast(texts, add_special_tokens=False) if texts else []
    return ids | {text: encoding.ids for text, encoding in zip(texts, encodings, strict=True)}


def check_text(text: str) -> None:
    """Raises InvalidRequestError when `text` holds a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            "The text holds half of a surrogate pair ({half} at character {position}), which is no character. "
            "Send well-formed Unicode.",
            code="invalid_value",
            half=f"U+{ord(text[error.start]):04X}",
            position=error.start,
        ) from error


def _library_token(token: AddedToken) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(
        token.text,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        single_word=token.single_word,
        normalized=token.normalized,
        special=False,
    )


def _token_bytes(file: BpeFile, vocab: Mapping[str, int], hidden_ids: frozenset[int]) -> list[bytes]:
    """id → bytes; ids without a token stand for nothing."""
    added = {token.id: token.text for token in file.added_tokens}
    highest = max([*file.vocab.values(), *added])
    table = [b""] * max(highest + 1, file.n_ids)
    byte_of = {character: byte for byte, character in bytes_to_characters().items()}
    for token, token_id in vocab.items():
        if token_id in added:
            continue
        if file.byte_level:
            try:
                table[token_id] = bytes([byte_of[character] for character in token])
            except KeyError:  # never spelled in the byte alphabet, so it is the text it shows
                table[token_id] = token.encode()
        elif match := _BYTE_TOKEN.fullmatch(token):
            table[token_id] = bytes([int(match[1], 16)])
        else:
            table[token_id] = token.replace("▁", " ").encode()
    for token_id, text in added.items():
        if token_id not in hidden_ids:
            table[token_id] = (text if file.byte_level else text.replace("▁", " ")).encode()
    return table


def _keeps_text(step: Mapping[str, object]) -> bool:
    """Whether a step of the pre-tokeniser keeps every character."""
    if step.get("type") == "Split":
        return step.get("behavior") != "Removed"
    return step.get("type") in {"ByteLevel", "Digits", "Metaspace"}
