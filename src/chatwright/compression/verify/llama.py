"""A GGUF file under llama.cpp, by either of its Python packages.

`xllamacpp` (prebuilt; the extra `llama`) is llama.cpp's server: its tokenizer, its templates, its answers; logits only as the log
probabilities of a whole vocabulary in JSON, so that few places of a text are looked at. `llama-cpp-python` has the C API: every
logit, but llama.cpp's own templates only as a guess, so that chats are left out. Where both are there, each does what it does best.

Keys and values are kept in float32 and attention is computed plainly: what is compared is the file, not the cache's rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from chatwright.compression.verify.measure import coarseness
from chatwright.compression.verify.side import Logits, Message, Precision, likeliest, precision_of
from chatwright.errors import EngineError, UsageError
from chatwright.model.checkpoint import GGUFCheckpoint, open_checkpoint
from chatwright.model.gguf import GGUFFile

# Places of one text of which the server is asked for the whole vocabulary: seconds each where it is large.
MOST_PLACES = 6
_CONTEXT = 4096


class LlamaSide:
    """See Side."""

    def __init__(self, label: str, path: Path, n_threads: int = 2) -> None:
        self.label = label
        checkpoint = open_checkpoint(path)
        if not isinstance(checkpoint, GGUFCheckpoint):
            raise UsageError("llama: takes a GGUF file; {path} is none.", path=path)
        self.checkpoint = checkpoint
        self.file: GGUFFile = checkpoint.file
        self.config = checkpoint.config
        types = {tensor.type.name for tensor in self.file.tensors.values() if len(tensor.shape) > 1}
        self.precision: Precision = max(map(precision_of, types), key=coarseness, default="fp32")
        has_server, has_api = find_spec("xllamacpp") is not None, find_spec("llama_cpp") is not None
        if not has_server and not has_api:
            raise UsageError(
                "llama: needs llama.cpp in Python, which is not installed: pip install 'chatwright[llama]' (xllamacpp)."
            )
        self._api = _Api(checkpoint.path, min(_CONTEXT, self.context_length), n_threads) if has_api else None
        self._server = _Server(checkpoint.path, min(_CONTEXT, self.context_length), n_threads) if has_server else None
        self.normalised = self._api is None

    @property
    def vocab_size(self) -> int:
        """See Side."""
        return self.config.vocab_size

    @property
    def context_length(self) -> int:
        """See Side."""
        return min(_CONTEXT, self.config.context_length)

    @property
    def has_template(self) -> bool:
        """See Side."""
        return self._server is not None and "tokenizer.chat_template" in self.file.metadata

    def pieces(self) -> list[bytes]:
        """See Side."""
        if self._api is not None:
            return [self._api.piece(i) for i in range(self.vocab_size)]
        assert self._server is not None
        return self._server.pieces(self.vocab_size)

    def encode(self, text: str) -> list[int]:
        """See Side."""
        side = self._server or self._api
        assert side is not None
        return side.encode(text)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """See Side."""
        assert self._server is not None
        return self._server.encode_chat(messages)

    def logits(self, ids: Sequence[int]) -> Logits:
        """See Side. By the server, rows of places that were not asked for are NaN."""
        if self._api is not None:
            return self._api.logits(list(ids), self.vocab_size)
        assert self._server is not None
        rows = np.full((len(ids), self.vocab_size), np.nan, np.float32)
        for place in sorted({round(p) for p in np.linspace(0, len(ids) - 1, min(MOST_PLACES, len(ids)))}):
            rows[place] = self._server.row(ids[: place + 1], self.vocab_size)
        return rows

    def greedy(self, ids: Sequence[int], n: int) -> list[int]:
        """See Side. The server stops at an end of text; the C API goes on."""
        side = self._api or self._server
        assert side is not None
        return side.greedy(list(ids), n)

    def close(self) -> None:
        """See Side."""
        for side in (self._api, self._server):
            if side is not None:
                side.close()


class _Server:
    """llama.cpp's server in this process."""

    def __init__(self, path: Path, n_ctx: int, n_threads: int) -> None:
        import xllamacpp

        options = xllamacpp.CommonParams()
        options.model.path = str(path)
        options.n_ctx, options.n_parallel, options.warmup, options.use_jinja = n_ctx, 1, False, True
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = n_threads
        options.cache_type_k = options.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        options.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        options.verbosity = -1
        try:
            self._server: Any = xllamacpp.Server(options)
        except RuntimeError as error:
            raise EngineError("llama.cpp cannot load {path}: {reason}", path=path, reason=error) from error
        self._client = httpx2.Client(base_url=self._server.listening_address, timeout=600, trust_env=False)
        self._whole = self.encode("a")[-1]

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self._client.post(path, json=body)
        if answer.status_code != 200:
            raise EngineError("llama.cpp refused what it was asked: {reason}", reason=answer.text[:200])
        return answer.json()

    def encode(self, text: str) -> list[int]:
        body = {"content": text, "add_special": True, "parse_special": False}
        ids: list[int] = self._post("/tokenize", body)["tokens"]
        return ids

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        prompt = self._post("/apply-template", {"messages": list(messages)})["prompt"]
        ids: list[int] = self._post("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})[
            "tokens"
        ]
        return ids

    def pieces(self, n: int) -> list[bytes]:
        """As one completion names the whole vocabulary."""
        found = [b""] * n
        for entry in self._top([0], n):
            found[entry["id"]] = bytes(entry["bytes"])
        return found

    def row(self, ids: Sequence[int], n: int) -> Logits:
        row = np.full(n, -np.inf, np.float32)
        for entry in self._top(ids, n):
            row[entry["id"]] = entry["logprob"]
        return row

    def _top(self, ids: Sequence[int], n: int) -> list[dict[str, Any]]:
        # An end of text or a part of a character would come without probabilities; which token is chosen does not change them.
        chosen = [[self._whole, 1e4]]
        body = {
            "prompt": list(ids),
            "n_predict": 1,
            "temperature": 0,
            "n_probs": n,
            "cache_prompt": True,
            "logit_bias": chosen,
        }
        top: list[dict[str, Any]] = self._post("/completion", body)["completion_probabilities"][0]["top_logprobs"]
        return top

    def greedy(self, ids: list[int], n: int) -> list[int]:
        body = {"prompt": ids, "n_predict": n, "temperature": 0, "return_tokens": True}
        tokens: list[int] = self._post("/completion", body)["tokens"]
        return tokens

    def close(self) -> None:
        self._client.close()
        del self._server


class _Api:
    """llama.cpp's C API."""

    def __init__(self, path: Path, n_ctx: int, n_threads: int) -> None:
        import llama_cpp as c

        self.c: Any = c
        self._quiet = c.llama_log_callback(lambda *_: None)  # kept: C calls it
        c.llama_log_set(self._quiet, ctypes.c_void_p(0))
        c.llama_backend_init()
        self.model = c.llama_model_load_from_file(str(path).encode(), c.llama_model_default_params())
        if not self.model:
            raise EngineError("llama.cpp cannot load {path}: {reason}", path=path, reason="llama_model_load_from_file")
        options = c.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = n_ctx
        options.n_threads = options.n_threads_batch = n_threads
        options.type_k = options.type_v = 0  # GGML_TYPE_F32
        options.flash_attn_type = 0
        self.context = c.llama_init_from_model(self.model, options)
        self.vocab = c.llama_model_get_vocab(self.model)
        self.batch = c.llama_batch_init(n_ctx, 0, 1)

    def encode(self, text: str) -> list[int]:
        raw = text.encode()
        room = (ctypes.c_int32 * (len(raw) + 8))()
        n = self.c.llama_tokenize(self.vocab, raw, len(raw), room, len(room), True, False)
        return list(room[:n])

    def piece(self, token: int) -> bytes:
        room = ctypes.create_string_buffer(512)
        n = self.c.llama_token_to_piece(self.vocab, token, room, len(room), 0, True)
        return room.raw[: max(0, n)]

    def _decode(self, ids: list[int], start: int, *, every: bool) -> None:
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            self.batch.token[i], self.batch.pos[i] = token, start + i
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
            self.batch.logits[i] = every or i == len(ids) - 1
        if self.c.llama_decode(self.context, self.batch):
            raise EngineError("llama.cpp refused what it was asked: {reason}", reason="llama_decode")

    def _clear(self) -> None:
        self.c.llama_memory_clear(self.c.llama_get_memory(self.context), True)

    def logits(self, ids: list[int], n_vocab: int) -> Logits:
        self._clear()
        self._decode(ids, 0, every=True)
        pointer = self.c.llama_get_logits(self.context)
        return np.ctypeslib.as_array(pointer, (len(ids), n_vocab)).copy()

    def greedy(self, ids: list[int], n: int) -> list[int]:
        self._clear()
        n_vocab = self.c.llama_vocab_n_tokens(self.vocab)
        found: list[int] = []
        new, start = ids, 0
        for _ in range(n):
            self._decode(new, start, every=False)
            start += len(new)
            row = np.ctypeslib.as_array(self.c.llama_get_logits_ith(self.context, -1), (n_vocab,))
            new = [likeliest(row)]
            found += new
        return found

    def close(self) -> None:
        self.c.llama_batch_free(self.batch)
        self.c.llama_free(self.context)
        self.c.llama_model_free(self.model)
