"""Chat templates: messages to one text, and messages to token ids in which no message can forge a control token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chatwright.errors import InvalidModelError, InvalidRequestError
from chatwright.tokenizer.control import ControlTokens
from chatwright.tokenizer.gguf import special_texts
from chatwright.tokenizer.huggingface import named_texts, read_json
from chatwright.tokenizer.markers import Marker, Shown
from chatwright.tokenizer.renderer import TemplateFailedError, TemplateRenderer
from chatwright.tokenizer.tokenizer import Tokenizer, check_text

MAX_TEMPLATE_BYTES = 2**20

# The first n messages of a conversation, and whether the answer is asked for (`add_generation_prompt`).
Cut = tuple[int, bool]


class ChatTemplate:
    """A model's chat template.

    source: the Jinja text. special_texts: bos_token, eos_token, … as the template sees them.
    """

    def __init__(
        self, source: str, special_texts: Mapping[str, str] | None = None, renderer: TemplateRenderer | None = None
    ) -> None:
        self.source = source
        self.special_texts = dict(special_texts or {})
        self._renderer = renderer or TemplateRenderer()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The prompt as text. Raises InvalidRequestError with the reason where the template does not take the messages.

        The text does not tell control tokens of the template from the same text in a message; `encode_chat` does.
        """
        cut = (len(messages), add_generation_prompt)
        return self.render_cuts(messages, [cut], tools=tools, **variables)[0]

    def render_cuts(
        self,
        messages: Sequence[Mapping[str, Any]],
        cuts: Sequence[Cut],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> list[str]:
        """Several prompts out of one conversation, as `render` makes them: one for each cut."""
        try:
            return self._render(messages, cuts, tools, variables)
        except TemplateFailedError as error:
            if error.kind == "raised":
                raise InvalidRequestError(
                    "The model's chat template does not accept these messages: {reason}",
                    param="messages",
                    code="invalid_value",
                    reason=error.reason,
                ) from error
            raise InvalidRequestError(
                "The model's chat template cannot render these messages: {reason}.",
                param="messages",
                code="invalid_value",
                reason=error.reason,
            ) from error

    def check(self, source: str) -> None:
        """Try the template on two short chats. Raises InvalidModelError, naming `source`, when it cannot work."""
        hello = {"role": "user", "content": "Hello"}
        longer = [
            {"role": "system", "content": "Be brief."},
            hello,
            {"role": "assistant", "content": "Hi"},
            hello,
        ]
        # Templates may refuse a system message, or want other fields; one that can not even greet is broken.
        for messages, tolerated in (([hello], {"raised"}), (longer, {"raised", "failed"})):
            try:
                self._render(messages, [(len(messages), True)], None, {})
            except TemplateFailedError as error:
                if error.kind not in tolerated:
                    raise InvalidModelError(
                        "The chat template of {source} is refused: {reason}.", source=source, reason=error.reason
                    ) from error

    def close(self) -> None:
        """End the process that renders."""
        self._renderer.close()

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        cuts: Sequence[Cut],
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
    ) -> list[str]:
        own = {"messages": messages, "tools": tools, "documents": None}
        return self._renderer.render_cuts(self.source, {**self.special_texts, **variables, **own}, cuts)


def load_chat_template(
    folder: Path,
    gguf_metadata: Mapping[str, Any] | None = None,
    renderer: TemplateRenderer | None = None,
    adapter: Path | None = None,
) -> ChatTemplate | None:
    """The chat template of a model, tried once; None when it has none.

    Looks for chat_template.jinja (in the folder of an `adapter` first, which may have taught it to a base model), then
    `chat_template` in tokenizer_config.json, then in the GGUF metadata. Raises InvalidModelError when the template is broken,
    loops, or tries to get out.
    """
    path, config = folder / "chat_template.jinja", read_json(folder / "tokenizer_config.json")
    if adapter is not None and (adapter / path.name).is_file():
        path = adapter / path.name
    texts = named_texts(config, read_json(folder / "special_tokens_map.json"))
    if path.is_file():
        where, source = str(path), _read_text(path)
    elif (found := _default_template(config.get("chat_template"))) is not None:
        where, source = str(folder / "tokenizer_config.json"), found
    elif gguf_metadata is not None and isinstance(found := gguf_metadata.get("tokenizer.chat_template"), str):
        where, source = "the GGUF file", found
    else:
        return None
    if not texts and gguf_metadata is not None:
        texts = special_texts(gguf_metadata)
    if len(source) > MAX_TEMPLATE_BYTES:
        raise InvalidModelError("The chat template of {source} is too long.", source=where)
    template = ChatTemplate(source, texts, renderer)
    template.check(where)
    return template


def encode_chat(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **variables: Any,
) -> list[int]:
    """Ids of the rendered prompt. Control tokens come from the template only: the same text in a message, a name, a
    tool or a variable is ordinary text. BOS is added only where the template writes it.

    Raises InvalidRequestError as `ChatTemplate.render` and `Tokenizer.encode` do.
    """
    cut = (len(messages), add_generation_prompt)
    return tokenizer.encode_segments(*chat_segments(tokenizer, template, messages, [cut], tools=tools, **variables))


def chat_segments(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    cuts: Sequence[Cut],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **variables: Any,
) -> list[list[str | int]]:
    """The prompts that `encode_chat` makes of the first messages of a conversation, one for each cut, before texts become
    ids: texts, and the ids of the control tokens between them.
    """
    given = {"messages": messages, "tools": tools, "variables": variables}
    texts = list(_texts(given))
    marker = Marker(tokenizer.control, template.source, [*template.special_texts.values(), *texts])

    def render(shown: Shown) -> list[str]:
        marked = marker.mark(given, shown=shown)
        return template.render_cuts(marked["messages"], cuts, tools=marked["tools"], **marked["variables"])

    prompts = render("break")
    if any(map(tokenizer.control.shown.search, texts)):
        ways = zip(prompts, render("keep"), render("wrap"), strict=True)
        prompts = [_as_template_meant(tokenizer.control, marker, *way) for way in ways]
    return [
        [segment if isinstance(segment, int) else marker.remove(segment) for segment in tokenizer.control.split(prompt)]
        for prompt in prompts
    ]


def _as_template_meant(control: ControlTokens, marker: Marker, broken: str, kept: str, wrapped: str) -> str:
    """The prompt when messages hold shown control tokens: templates look for some, as in `content.split('</think>')`.

    Where that makes a difference, `kept` is the prompt that the template means, but does not tell who wrote a token;
    `wrapped` tells, as what a user wrote stands next to a marker there, but its markers get in the way of stripping. If both
    are the same but for blanks, then so is the order of their tokens. Else the safe prompt is `broken`.
    """
    if marker.remove(kept) == marker.remove(broken):
        return broken
    if _without_blanks(marker.remove(kept)) != _without_blanks(marker.remove(wrapped)):
        return broken
    told = list(control.shown.finditer(wrapped))
    meant = list(control.shown.finditer(kept))
    if [match[0] for match in told] != [match[0] for match in meant]:
        return broken
    by_user = [marker.character in wrapped[max(0, match.start() - 1) : match.end() + 1] for match in told]
    return marker.breaks_at(kept, [match.start() + 1 for match, mark in zip(meant, by_user, strict=True) if mark])


def _without_blanks(text: str) -> str:
    return "".join(text.split())


def _texts(value: Any) -> Iterable[str]:
    """Every text inside JSON-like `value`, keys included. Raises InvalidRequestError on lone surrogates."""
    if isinstance(value, str):
        check_text(value)
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)


def _default_template(value: Any) -> str | None:
    """`chat_template` is a text, or a list of named texts of which "default" is for chats."""
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidModelError("{path} is not UTF-8 text.", path=str(path)) from error
