"""An HF folder under Transformers: its own tokenizer, template and model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from chatwright.compression.verify.ours import DTYPES
from chatwright.compression.verify.side import Logits, Message, Precision
from chatwright.errors import InvalidModelError, ModelNotFoundError, UsageError
from chatwright.model.first_call import settle_mkl


class TransformersSide:
    """See Side. Nothing is fetched, and no code of the folder is run."""

    normalised = False

    def __init__(self, label: str, folder: Path, precision: Precision = "fp32") -> None:
        if find_spec("transformers") is None:
            raise UsageError("hf: needs Transformers, which is not installed: pip install transformers.")
        if not (folder / "config.json").is_file():
            raise ModelNotFoundError("hf: takes a folder with config.json; {path} is none.", path=folder)
        import transformers

        settle_mkl()
        library: Any = transformers
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
        self.label, self.precision = label, precision
        try:
            self._tokenizer: Any = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model: Any = library.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=DTYPES[precision]
            ).eval()
        # RuntimeError: weights of other shapes than config.json says
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise InvalidModelError(
                "Transformers cannot load {path}: {reason}", path=folder, reason=str(error).partition("\n")[0][:200]
            ) from error

    @property
    def vocab_size(self) -> int:
        """See Side."""
        return int(self._model.config.vocab_size)

    @property
    def context_length(self) -> int:
        """See Side."""
        return int(self._model.config.max_position_embeddings)

    @property
    def has_template(self) -> bool:
        """See Side."""
        return self._tokenizer.chat_template is not None

    def pieces(self) -> list[bytes]:
        """See Side."""
        from chatwright.tokenizer.pipeline import bytes_to_characters

        spelled = {character: byte for byte, character in bytes_to_characters().items()}
        added = set(self._tokenizer.get_added_vocab())
        found = [b""] * self.vocab_size
        for token, i in self._tokenizer.get_vocab().items():
            if i < len(found):
                whole = token not in added and all(character in spelled for character in token)
                found[i] = (
                    bytes(spelled[character] for character in token) if whole else token.replace("▁", " ").encode()
                )
        return found

    def encode(self, text: str) -> list[int]:
        """See Side."""
        ids: list[int] = self._tokenizer(text, split_special_tokens=True)["input_ids"]
        return ids

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """See Side."""
        ids = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return list(ids)

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> Logits:
        """See Side."""
        found: Logits = self._model(torch.tensor([list(ids)])).logits[0].float().numpy()
        return found

    @torch.inference_mode()
    def greedy(self, ids: Sequence[int], n: int) -> list[int]:
        """See Side."""
        given = torch.tensor([list(ids)])
        made = self._model.generate(
            given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            num_beams=1,
            min_new_tokens=n,
            max_new_tokens=n,
            repetition_penalty=1.0,
            pad_token_id=0,
            eos_token_id=None,
        )
        return [int(i) for i in made[0, len(ids) :]]

    def close(self) -> None:
        """See Side."""
        del self._model
