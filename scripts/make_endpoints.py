"""Write docs/*/endpoints.md: every endpoint and parameter of the APIs that clients know, and whether it is there.

Which paths are served is read from web/openapi.json, which fields official clients can send from their own types, and what
becomes of them from the bodies of the server. api_surface.toml adds how far, and why not.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

import openai.types.chat.completion_create_params as chat_params
import openai.types.completion_create_params as completion_params
from anthropic.types import MessageCountTokensParams
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from openai.types import (
    BatchCreateParams,
    BatchListParams,
    EmbeddingCreateParams,
    EvalCreateParams,
    EvalListParams,
    EvalUpdateParams,
    FileCreateParams,
    FileListParams,
    ModerationCreateParams,
    UploadCompleteParams,
    UploadCreateParams,
)
from openai.types.admin.organization import UsageCompletionsParams
from openai.types.chat import CompletionListParams, CompletionUpdateParams
from openai.types.chat.completions import MessageListParams
from openai.types.conversations import (
    ConversationCreateParams,
    ConversationUpdateParams,
    ItemCreateParams,
    ItemListParams,
    ItemRetrieveParams,
)
from openai.types.evals import RunCreateParams, RunListParams
from openai.types.evals.runs import OutputItemListParams
from openai.types.fine_tuning import JobCreateParams, JobListEventsParams, JobListParams
from openai.types.fine_tuning.jobs import CheckpointListParams
from openai.types.responses import InputItemListParams, InputTokenCountParams
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from openai.types.responses.response_retrieve_params import ResponseRetrieveParamsStreaming
from openai.types.uploads import PartCreateParams

from chatwright.server.anthropic.requests import CountBody, MessagesBody
from chatwright.server.openai.classify import ClassifyBody
from chatwright.server.openai.requests import ChatBody, CompletionBody, SamplingBody
from chatwright.server.openai.rerank import RerankBody
from chatwright.server.openai.responses.requests import ResponseBody
from chatwright.server.openai.tokens import TokenizeBody

ROOT = Path(__file__).resolve().parents[1]
Language = Literal["en", "zh"]
Fate = Literal["yes", "partly", "no", "ignored", "own"]

# What official clients can send; None: of APIs whose clients have no types.
OFFICIAL: dict[str, Any] = {
    "POST /v1/chat/completions": chat_params.CompletionCreateParamsNonStreaming,
    "POST /v1/completions": completion_params.CompletionCreateParamsNonStreaming,
    "GET /v1/chat/completions": CompletionListParams,
    "POST /v1/chat/completions/{}": CompletionUpdateParams,
    "GET /v1/chat/completions/{}/messages": MessageListParams,
    "POST /v1/responses": ResponseCreateParamsNonStreaming,
    "GET /v1/responses/{}": ResponseRetrieveParamsStreaming,
    "GET /v1/responses/{}/input_items": InputItemListParams,
    "POST /v1/responses/input_tokens": InputTokenCountParams,
    "POST /v1/conversations": ConversationCreateParams,
    "POST /v1/conversations/{}": ConversationUpdateParams,
    "GET /v1/conversations/{}/items": ItemListParams,
    "POST /v1/conversations/{}/items": ItemCreateParams,
    "GET /v1/conversations/{}/items/{}": ItemRetrieveParams,
    "POST /v1/embeddings": EmbeddingCreateParams,
    "POST /v1/moderations": ModerationCreateParams,
    "GET /v1/files": FileListParams,
    "POST /v1/files": FileCreateParams,
    "POST /v1/uploads": UploadCreateParams,
    "POST /v1/uploads/{}/parts": PartCreateParams,
    "POST /v1/uploads/{}/complete": UploadCompleteParams,
    "GET /v1/batches": BatchListParams,
    "POST /v1/batches": BatchCreateParams,
    "GET /v1/evals": EvalListParams,
    "POST /v1/evals": EvalCreateParams,
    "POST /v1/evals/{}": EvalUpdateParams,
    "GET /v1/evals/{}/runs": RunListParams,
    "POST /v1/evals/{}/runs": RunCreateParams,
    "GET /v1/evals/{}/runs/{}/output_items": OutputItemListParams,
    "GET /v1/fine_tuning/jobs": JobListParams,
    "POST /v1/fine_tuning/jobs": JobCreateParams,
    "GET /v1/fine_tuning/jobs/{}/events": JobListEventsParams,
    "GET /v1/fine_tuning/jobs/{}/checkpoints": CheckpointListParams,
    "GET /v1/organization/usage/completions": UsageCompletionsParams,
    "POST /v1/edits": None,
    "POST /v1/fine-tunes": None,
    "POST /v1/messages": MessageCreateParamsNonStreaming,
    "POST /v1/messages/count_tokens": MessageCountTokensParams,
    "POST /v1/tokenize": None,
    "POST /v1/detokenize": None,
    "GET /v1/tokenizer_info": None,
    "POST /v1/classify": None,
    "POST /v1/rerank": None,
    "POST /v1/load_lora_adapter": None,
    "POST /v1/unload_lora_adapter": None,
}
# What refuses fields by their names.
BODIES: dict[str, Any] = {
    "POST /v1/chat/completions": ChatBody,
    "POST /v1/completions": CompletionBody,
    "POST /v1/responses": ResponseBody,
    "POST /v1/messages": MessagesBody,
    "POST /v1/messages/count_tokens": CountBody,
    "POST /v1/tokenize": TokenizeBody,
    "POST /v1/classify": ClassifyBody,
    "POST /v1/rerank": RerankBody,
}
# Fields of a body that has more than the route looks at.
UNREAD: dict[str, frozenset[str]] = {
    "POST /v1/responses/input_tokens": frozenset(SamplingBody.model_fields) - {"model"},
}

WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "title": "Endpoints and parameters",
        "intro": "Made by `make docs` from the server's own description and the types of the official clients; do not edit. "
        "[The API](api.md) explains how things work, this page says what there is.",
        "yes": "yes",
        "partly": "partly",
        "no": "no",
        "ignored": "ignored",
        "own": "also here",
        "endpoint": "endpoint",
        "parameter": "parameter",
        "there": "",
        "note": "",
        "own paths": "Chatwright's own",
        "parameters": "Parameters of `{path}`",
        "legend": "*partly*: with limits that are named. *ignored*: accepted and without effect. "
        "*no*: a 404 for a path (405 where it has other methods), a "
        "400 `unsupported_parameter` for a field that asks for something. *also here*: the original does not have it. Any other "
        "field is ignored.",
    },
    "zh": {
        "title": "接口与参数一览",
        "intro": "本页由 `make docs` 根据服务器自身的描述与官方客户端的类型生成，请勿手工编辑。"
        "[API](api.md) 说明如何使用，本页列出有哪些。",
        "yes": "支持",
        "partly": "部分支持",
        "no": "不支持",
        "ignored": "忽略",
        "own": "此处另有",
        "endpoint": "接口",
        "parameter": "参数",
        "there": "",
        "note": "",
        "own paths": "Chatwright 自己的接口",
        "parameters": "`{path}` 的参数",
        "legend": "“部分支持”：有注明的限制。“忽略”：可以传，但没有作用。"
        "“不支持”：路径返回 404（有其他方法的路径返回 405）；要求某种功能的字段返回 400 "
        "`unsupported_parameter`。“此处另有”：原接口没有。其余字段一律忽略。",
    },
}


@dataclass(frozen=True)
class Surface:
    """What is served, and what is written about it. `served`: "POST /v1/models/{}", names of parts of paths left out, with the
    fields that a request may have there, in its address or its body."""

    served: Mapping[str, frozenset[str]]
    notes: Mapping[str, Any]

    @classmethod
    def read(cls) -> Surface:
        """From the files."""
        api = json.loads((ROOT / "web" / "openapi.json").read_text(encoding="utf-8"))
        served = {
            f"{method.upper()} {re.sub(r'{[^}]*}', '{}', path)}": frozenset(_fields(operation, api))
            for path, methods in api["paths"].items()
            for method, operation in methods.items()
        }
        return cls(served, tomllib.loads((ROOT / "scripts" / "api_surface.toml").read_text(encoding="utf-8")))

    def fate_of_path(self, path: str) -> Fate:
        """Of a path of some API."""
        if path not in self.served:
            return "no"
        return "partly" if path in self.notes["partly"] else "yes"

    def fates_of_fields(self, path: str) -> dict[str, Fate]:
        """Of every field that an official client can send there, and of those that are known beside."""
        read = self.served[path] - UNREAD.get(path, frozenset())
        refused = getattr(BODIES.get(path), "unsupported", {})
        official = set(get_type_hints(OFFICIAL[path])) if OFFICIAL[path] else set(read)
        # The type of what is answered at once has no field to ask for pieces; names of parts of the path are in no type of ours.
        official = (official | ({"stream"} & read)) - {"conversation_id", "eval_id"}
        described = self.notes["parameters"].get(path, {})
        fates: dict[str, Fate] = {}
        for name in sorted(official):
            if name in read:
                fates[name] = "partly" if name in described else "yes"
            else:
                fates[name] = "no" if name in refused else "ignored"
        beside = dict.fromkeys(sorted(read - official), "own") | dict.fromkeys(sorted(set(refused) - official), "no")
        return fates | beside  # type: ignore[operator]

    def note_on_field(self, path: str, name: str, fate: Fate) -> Mapping[str, str]:
        """What is written about it. Raises KeyError where something that is refused or ignored has no reason."""
        described: Mapping[str, Mapping[str, str]] = self.notes["parameters"].get(path, {})
        if fate in ("no", "ignored"):
            reason: Mapping[str, str] = self.notes["refused" if fate == "no" else "ignored"][name]
            return reason
        return described.get(name, {"en": "", "zh": ""})


def _fields(operation: Mapping[str, Any], api: Mapping[str, Any]) -> Iterator[str]:
    """Names of what a request may have in its address and its body, objects of forms and addresses (`a[b]`) as one field."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            yield parameter["name"].partition("[")[0]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content["schema"]
        if "$ref" in schema:
            schema = api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        yield from (name.partition("[")[0] for name in schema.get("properties", ()))


def page(language: Language, surface: Surface) -> str:
    """The whole page in one language."""
    return "\n".join(_lines(language, surface)) + "\n"


def _lines(language: Language, surface: Surface) -> Iterator[str]:
    words = WORDS[language]
    yield from (f"# {words['title']}", "", words["intro"], "", words["legend"])
    told: set[str] = set()
    for family in surface.notes["family"]:
        yield from ("", f"## {family[language]}", "", f"| {words['endpoint']} | | |", "| --- | --- | --- |")
        for path in family["paths"]:
            told.add(path)
            fate = surface.fate_of_path(path)
            notes = family["why"] if fate == "no" else surface.notes["partly"].get(path, {})
            yield f"| `{path}` | {words[fate]} | {notes.get(language, '')} |"
    own = sorted(set(surface.served) - told, key=lambda path: (path.partition(" ")[2], path))
    yield from ("", f"## {words['own paths']}", "")
    yield ", ".join(f"`{path}`" for path in own)
    for path in OFFICIAL:
        yield from ("", f"## {words['parameters'].format(path=path)}", "")
        yield from (f"| {words['parameter']} | | |", "| --- | --- | --- |")
        for name, fate in surface.fates_of_fields(path).items():
            yield f"| `{name}` | {words[fate]} | {surface.note_on_field(path, name, fate)[language]} |"


def main() -> None:
    """Write both pages into the folder named, or docs."""
    docs = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    surface = Surface.read()
    for language in WORDS:
        (docs / language / "endpoints.md").write_text(page(language, surface), encoding="utf-8")


if __name__ == "__main__":
    main()
