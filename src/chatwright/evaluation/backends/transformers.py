"""Transformers, where it is installed: the reference that our engine is held against. float32, one item at a time."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from chatwright.errors import EvaluationError, InvalidModelError
from chatwright.evaluation.backends.protocol import (
    Likelihood,
    TextScore,
    check_choice,
    room_for_prompt,
    split_context,
    split_tokens,
)
from chatwright.evaluation.backends.windows import windows
from chatwright.evaluation.examples import Prompt
from chatwright.i18n import _
from chatwright.model.first_call import settle_mkl
from chatwright.model.text_files import text_fingerprint
from chatwright.tokenizer.special import END_OF_TEXT

log = logging.getLogger(__name__)

# In a model's folder: weights in either format, and a tokenizer that is no text.
_BINARIES = ("*.safetensors", "*.bin", "tokenizer.model")


class TransformersWriter:
    """A `Writer` over a folder in HF's layout, or a GGUF file that Transformers reads. Raises EvaluationError,
    InvalidModelError.
    """

    concurrency = 1

    def __init__(self, path: Path, name: str, n_threads: int) -> None:
        try:
            import transformers as _installed  # noqa: F401
        except ImportError as error:
            raise EvaluationError(
                "--backend transformers needs the package transformers: pip install transformers."
            ) from error
        settle_mkl()
        torch.set_num_threads(n_threads)
        self.tokenizer, model = _load(path)
        self.name, self.model = name, model.eval()
        config: Any = self.model.config
        lengths = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions"))
        self.context_length = next((int(each) for each in lengths if each), 2048)
        self.fingerprint = f"transformers {_fingerprint(path)}"
        ends = self.model.generation_config.eos_token_id
        listed = ends if isinstance(ends, list) else [ends]
        self._ends = {end for end in (*listed, self.tokenizer.eos_token_id) if end is not None}

    @property
    def chats(self) -> bool:
        """See Writer."""
        return self.tokenizer.chat_template is not None

    @property
    def room(self) -> int:
        """See Writer."""
        return self.context_length

    async def likelihoods(self, prompt: Prompt, continuations: Sequence[str]) -> list[Likelihood]:
        """See Writer."""
        found = []
        for continuation in continuations:
            ids, n_context = self._pair(prompt, continuation)
            n_cut = max(0, len(ids) - self.context_length)
            n_scored = max(1, len(ids) - n_context)
            check_choice(n_scored, len(ids) - n_cut, self.name, self.context_length)
            logprobs = self._logprobs(ids[n_cut:])
            found.append(Likelihood(math.fsum(logprobs[len(logprobs) - n_scored :]), n_scored, n_cut))
        return found

    async def score_text(self, text: str) -> TextScore:
        """See Writer."""
        body = self.tokenizer.encode(text, add_special_tokens=False)
        nats = 0.0
        for window, n_scored in windows([self._start(), *body], self.context_length):
            nats -= math.fsum(self._logprobs(window)[-n_scored:])
        return TextScore(nats, len(text.encode()), len(body))

    @torch.no_grad()
    async def answer(self, prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> str:
        """See Writer."""
        room = room_for_prompt(max_tokens, self.name, self.context_length)
        return self._said(self._context(prompt)[-room:], max_tokens, stop, self._ends)

    @torch.no_grad()
    async def sample(self, text: str, max_tokens: int, seed: int) -> str:
        """See Writer."""
        start = self._start()
        max_tokens = min(max_tokens, self.context_length - 1)
        ids = [start, *self.tokenizer.encode(text, add_special_tokens=False)][-(self.context_length - max_tokens) :]
        generator = torch.Generator().manual_seed(seed)
        return self._said(ids, max_tokens, (), self._ends | {start}, generator)

    @torch.no_grad()
    async def recite(self, text: str, n_given: int) -> tuple[str, str]:
        """See Writer."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)[: self.context_length - 3]
        n = split_tokens(ids, self.tokenizer.decode, n_given)
        said = self._said([self._start(), *ids[:n]], len(ids) - n + 2, (), self._ends)
        return said, str(self.tokenizer.decode(ids[n:]))

    def _said(
        self,
        ids: Sequence[int],
        max_tokens: int,
        stop: Sequence[str],
        ends: set[int],
        generator: torch.Generator | None = None,
    ) -> str:
        """The likeliest tokens, or with a generator drawn ones."""
        given, cache = torch.tensor([list(ids)]), None
        said: list[int] = []
        text: str = ""
        while len(said) < max_tokens:
            out = self.model(input_ids=given, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logits_V = out.logits[0, -1].float()
            drawn = torch.multinomial(logits_V.softmax(-1), 1, generator=generator) if generator else logits_V.argmax()
            best = int(drawn)
            if best in ends:
                break
            said.append(best)
            given = torch.tensor([[best]])
            text = str(self.tokenizer.decode(said, skip_special_tokens=True))
            places = [place for each in stop if (place := text.find(each)) >= 0]
            if places:
                text = text[: min(places)]
                break
        return text.rstrip("\ufffd")  # the last character may have been cut off by the limit, as ours drops it

    async def close(self) -> None:
        """See Writer."""
        del self.model

    def _start(self) -> int:
        """As `document_boundary`."""
        known = self.tokenizer.get_vocab()
        candidates = (known.get(END_OF_TEXT), self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        start = next((each for each in candidates if each is not None), None)
        if start is None:
            raise InvalidModelError(
                "The tokenizer has no token that separates documents: neither <|endoftext|> nor a beginning or end of sequence."
            )
        return int(start)

    def _context(self, prompt: Prompt) -> list[int]:
        if prompt.messages:
            ids: list[int] = self.tokenizer.apply_chat_template(
                list(prompt.messages), add_generation_prompt=True, tokenize=True, return_dict=False
            )
            return ids
        return list(self.tokenizer.encode(prompt.text))

    def _pair(self, prompt: Prompt, continuation: str) -> tuple[list[int], int]:
        if prompt.messages:
            context_ids = self._context(prompt)
            return [*context_ids, *self.tokenizer.encode(continuation, add_special_tokens=False)], len(context_ids)
        context, continuation = split_context(prompt.text, continuation)
        if not context:
            return [self._start(), *self.tokenizer.encode(continuation, add_special_tokens=False)], 1
        return self.tokenizer.encode(context + continuation), len(self.tokenizer.encode(context))

    @torch.no_grad()
    def _logprobs(self, ids: Sequence[int]) -> list[float]:
        logits_TV = self.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, :-1].float()
        chosen_T = logits_TV.log_softmax(-1).gather(1, torch.tensor(list(ids[1:]))[:, None])[:, 0]
        found: list[float] = chosen_T.tolist()
        return found


def _load(path: Path) -> tuple[Any, Any]:
    """Tokenizer and model. Raises InvalidModelError, also where weights are left as they were drawn: the scores would be
    nobody's.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"pretrained_model_name_or_path": str(path)}
    if path.is_file():
        source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        with _quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(**source)
            # Sizes that do not match are told in `info`; the error for them only points at a report on the terminal.
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                **source, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise _unreadable(path, str(error).partition("\n")[0].partition(" For details look at")[0][:300]) from error
    model, info = loaded
    for name, found, expected in sorted(info["mismatched_keys"]):
        shapes = {"found": _shape(found), "expected": _shape(expected)}
        raise _unreadable(path, _("it takes {name} to be {expected}, and finds {found}", name=name, **shapes))
    for name in sorted(info["missing_keys"]):
        raise _unreadable(path, _("it finds no {name}", name=name))
    if unused := sorted(info["unexpected_keys"]):
        log.warning("%s: Transformers does not use %d of the weights: %s", path, len(unused), ", ".join(unused)[:300])
    return tokenizer, model


def _unreadable(path: Path, reason: str) -> InvalidModelError:
    if path.is_file():
        return InvalidModelError(
            "Transformers cannot load {path}: {reason}. It does not read every GGUF: `chatwright export MODEL --to hf --out FOLDER`"
            " writes a folder that it reads.",
            path=path,
            reason=reason.rstrip("."),
        )
    return InvalidModelError("Transformers cannot load {path}: {reason}", path=path, reason=reason)


def _shape(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))


@contextmanager
def _quiet() -> Iterator[None]:
    """Bars and reports of Transformers would stand between ours; whoever else uses it in this process finds it as it was."""
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging as untyped_logging

    gguf: Any = modeling_gguf_pytorch_utils
    their_logging: Any = untyped_logging
    bar = getattr(gguf, "tqdm", None)  # of tqdm itself, which disable_progress_bar does not reach
    verbosity, bars = their_logging.get_verbosity(), their_logging.is_progress_bar_enabled()
    their_logging.set_verbosity_error()
    their_logging.disable_progress_bar()
    if bar is not None:
        gguf.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        their_logging.set_verbosity(verbosity)
        if bars:
            their_logging.enable_progress_bar()
        if bar is not None:
            gguf.tqdm = bar


def _fingerprint(path: Path) -> str:
    files = [path] if path.is_file() else sorted(file for pattern in _BINARIES for file in path.glob(pattern))
    parts = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\0".join([text_fingerprint(path), *parts]).encode()).hexdigest()[:16]
