"""An item's answer by a model: what it is asked, by the same routes as anybody, and what graders and clients see of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError

from chatwright.errors import ChatwrightError, EvaluationError, InvalidRequestError
from chatwright.server.errors import describe_validation
from chatwright.server.evals.templates import Path, Template, text_of
from chatwright.server.openai.requests import ChatBody
from chatwright.server.openai.responses.requests import ResponseBody
from chatwright.store.evals.work import Use

# As OpenAI fills in what a run leaves open: runs can be repeated.
SEED = 42
DEFAULT_MESSAGES = "item.input"
COPIED = ("seed", "temperature", "top_p", "tools")
TAKEN = {
    "completions": {*COPIED, "max_completion_tokens", "response_format"},
    "responses": {*COPIED, "max_completion_tokens", "text"},
}
# What a request of one's own could ask for: who sends one of these to a run shall not believe that it was heard.
KNOWN_ELSEWHERE = {*ChatBody.model_fields, *ResponseBody.model_fields, "reasoning_effort", "verbosity"}
NO_ERROR = {"code": "", "message": ""}


class ItemError(Exception):
    """An item that cannot be graded, and why. `shown`: its sample as far as there is one."""

    def __init__(self, code: str, message: str, shown: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.shown = code, message, shown

    @classmethod
    def of(cls, error: ChatwrightError) -> ItemError:
        """The wire speaks English."""
        return cls("invalid_item", str(error))


@dataclass(frozen=True)
class Sample:
    """`scope`: what templates name; None where there is nothing. `shown`: as the wire shows it."""

    scope: dict[str, Any] | None
    shown: dict[str, Any]
    uses: tuple[Use, ...] = ()


@dataclass(frozen=True)
class Sampler:
    """How a run asks a model. `context_length`: of the model, in tokens."""

    kind: str
    model: str
    messages: tuple[tuple[str, Template], ...] | Path
    params: Mapping[str, Any]
    context_length: int = 0

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> Sampler | None:
        """From a run's data source; None where nothing is to be asked. Raises InvalidRequestError for one that lacks something."""
        if source["type"] == "jsonl":
            return None
        model, wanted = source.get("model"), source.get("input_messages")
        is_kept = source["source"]["type"] in ("stored_completions", "responses")
        if model is None:
            if is_kept and wanted is None:
                return None
            raise InvalidRequestError(
                "Name the model that shall answer: data_source.model is missing.",
                param="data_source",
                code="missing_model",
            )
        if wanted is None and not is_kept:
            raise InvalidRequestError(
                "Say what the model is asked: data_source.input_messages is missing.",
                param="data_source",
                code="missing_messages",
            )
        if wanted is not None and wanted["type"] == "template":
            lines = tuple((line["role"], Template.parse(_joined(line["content"]))) for line in wanted["template"])
            if any("sample" in template.namespaces for _, template in lines):
                raise InvalidRequestError(
                    "A message to the model can name the item only: the sample is its answer.",
                    param="data_source",
                    code="invalid_template",
                )
            return cls(source["type"], model, lines, source.get("sampling_params") or {})
        path = Path(wanted["item_reference"] if wanted is not None else DEFAULT_MESSAGES)
        return cls(source["type"], model, path, source.get("sampling_params") or {})

    @property
    def endpoint(self) -> str:
        """Which route answers."""
        return "/v1/chat/completions" if self.kind == "completions" else "/v1/responses"

    def asked(self, item: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The messages for an item. Raises EvaluationError."""
        scope = {"item": item}
        if not isinstance(self.messages, Path):
            return [{"role": role, "content": template.render(scope)} for role, template in self.messages]
        found = self.messages.value(scope)
        if isinstance(found, str):
            return [{"role": "user", "content": found}]
        # Responses know items without a role, too: calls, and their results.
        mark = "type" if self.kind == "responses" else "role"
        if isinstance(found, list) and found and all(isinstance(m, dict) and ("role" in m or mark in m) for m in found):
            return list(found)
        raise EvaluationError("{path} is neither a text nor a list of messages.", path=self.messages.text)

    def body(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """The request for these messages."""
        params = {"seed": SEED, "temperature": 1.0, "top_p": 1.0}
        params |= {name: self.params[name] for name in COPIED if self.params.get(name) is not None}
        most = self.params.get("max_completion_tokens")
        if self.kind == "completions":
            more = {"messages": messages, "max_completion_tokens": most}
            more["response_format"] = self.params.get("response_format")
        else:
            more = {"input": messages, "max_output_tokens": most, "text": self.params.get("text"), "store": False}
        return {"model": self.model, **params, **{name: value for name, value in more.items() if value is not None}}

    def check(self) -> None:
        """Raise InvalidRequestError for parameters that no route takes, or that a run does not hand on."""
        for name, value in self.params.items():
            harmless = value is None or (name == "reasoning_effort" and value == "none")
            if name in KNOWN_ELSEWHERE - TAKEN[self.kind] and not harmless:
                raise InvalidRequestError(
                    "The sampling_params of a run of the type {kind} have no {name}. They can have: {names}.",
                    kind=self.kind,
                    name=name,
                    names=", ".join(sorted(TAKEN[self.kind])),
                    param="data_source",
                    code="unsupported_parameter",
                )
        body = self.body([{"role": "user", "content": "x"}])
        try:
            if self.kind == "completions":
                ChatBody.model_validate(body).tool_use()
            else:
                ResponseBody.model_validate(body)
        except ValidationError as error:
            what, _ = describe_validation(error.errors())
            raise InvalidRequestError(
                "The sampling_params are not right. {what}", what=what, param="data_source", code="invalid_value"
            ) from None
        except InvalidRequestError as error:
            error.param = "data_source"
            raise

    def sample(self, messages: list[dict[str, Any]], answer: Mapping[str, Any]) -> Sample:
        """What a good answer comes to."""
        read = _read_chat(answer) if self.kind == "completions" else read_response(answer)
        use = Use(self.model, read.n_prompt, read.n_cached, read.n_completion)
        scope = {
            "model": answer["model"],
            "finish_reason": read.finish_reason,
            "input": messages,
            "output_text": read.text,
            "output_tools": read.calls,
        }
        with suppress(orjson.JSONDecodeError):  # a template that names it then finds nothing
            scope["output_json"] = orjson.loads(read.text)
        output: dict[str, Any] = {"role": "assistant", "content": read.text}
        if read.calls:
            output["tool_calls"] = read.calls
        shown = self.shown(messages)
        shown |= {"model": answer["model"], "output": [output], "finish_reason": read.finish_reason}
        shown["usage"] = {
            "prompt_tokens": use.prompt,
            "completion_tokens": use.completion,
            "cached_tokens": use.cached,
            "total_tokens": use.prompt + use.completion,
        }
        if self.params.get("max_completion_tokens") is None:
            shown["max_completion_tokens"] = max(0, self.context_length - use.prompt)
        return Sample(scope, shown, (use,))

    def shown(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """A sample as the wire shows it, before anything was answered."""
        body = self.body([])
        return {
            **empty_sample(),
            "input": [_shown_message(message) for message in messages],
            "model": self.model,
            "seed": body["seed"],
            "temperature": body["temperature"],
            "top_p": body["top_p"],
            "max_completion_tokens": self.params.get("max_completion_tokens") or 0,
        }


def empty_sample() -> dict[str, Any]:
    """Of an item that no model was asked about: clients' types have no word for nothing."""
    return {
        "error": NO_ERROR,
        "finish_reason": "",
        "input": [],
        "max_completion_tokens": 0,
        "model": "",
        "output": [],
        "seed": 0,
        "temperature": 0.0,
        "top_p": 0.0,
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0, "total_tokens": 0},
    }


def given_sample(given: Mapping[str, Any] | None) -> Sample:
    """Of an item that came with its answer, or without any."""
    shown = empty_sample()
    if given is None:
        return Sample(None, shown)
    text = given.get("output_text")
    if text is not None:
        shown["output"] = [{"role": "assistant", "content": text_of(text)}]
    for name in ("model", "finish_reason"):
        if isinstance(given.get(name), str):
            shown[name] = given[name]
    asked = given.get("input")
    if isinstance(asked, list) and all(isinstance(message, dict) for message in asked):
        shown["input"] = [_shown_message(message) for message in asked]
    return Sample(dict(given), shown)


@dataclass(frozen=True)
class Read:
    """An answer of either kind."""

    text: str
    finish_reason: str
    n_prompt: int
    n_cached: int
    n_completion: int
    calls: list[dict[str, Any]] = field(default_factory=list)


def _read_chat(answer: Mapping[str, Any]) -> Read:
    choice, usage = answer["choices"][0], answer["usage"]
    return Read(
        choice["message"].get("content") or "",
        choice["finish_reason"],
        usage["prompt_tokens"],
        (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        usage["completion_tokens"],
        choice["message"].get("tool_calls") or [],
    )


def read_response(answer: Mapping[str, Any]) -> Read:
    """What a response says, and why it ended."""
    texts, calls = [], []
    for item in answer["output"]:
        if item["type"] == "message":
            texts += [part["text"] for part in item["content"] if part["type"] == "output_text"]
        elif item["type"] == "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            calls.append({"id": item["call_id"], "type": "function", "function": function})
    reason = "tool_calls" if calls else "stop"
    if answer["status"] == "incomplete":
        why = (answer.get("incomplete_details") or {}).get("reason")
        reason = "content_filter" if why == "content_filter" else "length"
    usage = answer["usage"] or {"input_tokens": 0, "output_tokens": 0}
    cached = (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
    return Read("".join(texts), reason, usage["input_tokens"], cached, usage["output_tokens"], calls)


def _joined(content: Any) -> str:
    """The text of a message, however it was written."""
    if isinstance(content, list):
        return "".join(map(_joined, content))
    return content if isinstance(content, str) else content["text"]


def _shown_message(message: Mapping[str, Any]) -> dict[str, str]:
    content = message.get("content", message.get("output", message.get("arguments")))
    if isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content):
        content = "".join(text_of(part["text"]) for part in content)
    return {"role": text_of(message.get("role", "")), "content": "" if content is None else text_of(content)}
