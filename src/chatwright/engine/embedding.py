"""Models above an encoder: they have names and tokenizers as models that talk have, embed texts, and refuse to write any."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import NoReturn

from chatwright.engine.protocol import Engine
from chatwright.engine.text import TextEvent, TextModel, TextRequest
from chatwright.errors import InvalidRequestError
from chatwright.tokenizer.encoder_text import EncoderTokenizer


class EmbeddingModel(TextModel):
    """A model which only embeds."""

    writes_text = False

    def __init__(
        self,
        name: str,
        engine: Engine,
        tokenizer: EncoderTokenizer,
        *,
        languages: tuple[str, ...] = (),
        created: int = 0,
        fingerprint: str = "",
        vector_width: int = 0,
    ) -> None:
        super().__init__(
            name,
            engine,
            tokenizer,
            None,
            languages=languages,
            created=created,
            fingerprint=fingerprint,
            vector_width=vector_width,
        )

    def _as_encoded(self, ids: Sequence[int]) -> list[int]:
        assert isinstance(self.tokenizer, EncoderTokenizer)
        return self.tokenizer.marked(ids)

    def _chat_template(self) -> NoReturn:
        raise self._writes_none()

    async def encode_between(self, prompt: str | Sequence[int], suffix: str) -> list[int]:
        """Refused. Raises InvalidRequestError."""
        raise self._writes_none()

    async def generate(self, request: TextRequest) -> AsyncGenerator[TextEvent, None]:
        """Refused. Raises InvalidRequestError."""
        raise self._writes_none()
        yield  # makes this a generator, as that of other models is

    def _writes_none(self) -> InvalidRequestError:
        return InvalidRequestError(
            "The model {name} turns texts into vectors and writes none. Name a model that continues text.",
            name=self.name,
            param="model",
            code="unsupported_model",
        )
