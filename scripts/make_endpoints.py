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
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from openai.types import EmbeddingCreateParams
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming

from chatwright.server.anthropic.requests import MessagesBody
from chatwright.server.openai.embeddings import EmbeddingBody
from chatwright.server.openai.requests import ChatBody, CompletionBody
from chatwright.server.openai.responses.requests import ResponseBody

ROOT = Path(__file__).resolve().parents[1]
Language = Literal["en", "zh"]
Fate = Literal["yes", "partly", "no", "ignored", "own"]

# What official clients can send, and what the server makes of it.
BODIES: dict[str, tuple[Any, Any]] = {
    "POST /v1/chat/completions": (chat_params.CompletionCreateParamsNonStreaming, ChatBody),
    "POST /v1/completions": (completion_params.CompletionCreateParamsNonStreaming, CompletionBody),
    "POST /v1/responses": (ResponseCreateParamsNonStreaming, ResponseBody),
    "POST /v1/embeddings": (EmbeddingCreateParams, EmbeddingBody),
    "POST /v1/messages": (MessageCreateParamsNonStreaming, MessagesBody),
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
        "legend": "*partly*: with limits that are named. *ignored*: accepted and without effect. *no*: a 404 for a path, a "
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
        "legend": "“部分支持”：有注明的限制。“忽略”：可以传，但没有作用。“不支持”：路径返回 404；要求某种功能的字段返回 400 "
        "`unsupported_parameter`。“此处另有”：原接口没有。其余字段一律忽略。",
    },
}


@dataclass(frozen=True)
class Surface:
    """What is served, and what is written about it. `served`: "POST /v1/models/{}", names of parts of paths left out."""

    served: frozenset[str]
    notes: Mapping[str, Any]

    @classmethod
    def read(cls) -> Surface:
        """From the files."""
        api = json.loads((ROOT / "web" / "openapi.json").read_text(encoding="utf-8"))
        served = {
            f"{method.upper()} {re.sub(r'{[^}]*}', '{}', path)}"
            for path, methods in api["paths"].items()
            for method in methods
        }
        return cls(
            frozenset(served), tomllib.loads((ROOT / "scripts" / "api_surface.toml").read_text(encoding="utf-8"))
        )

    def fate_of_path(self, path: str) -> Fate:
        """Of a path of some API."""
        if path not in self.served:
            return "no"
        return "partly" if path in self.notes["partly"] else "yes"

    def fates_of_fields(self, path: str) -> dict[str, Fate]:
        """Of every field that an official client can send there, and of those that are known beside."""
        official, body = BODIES[path]
        known = {*get_type_hints(official), "stream"} - ({"stream"} if "stream" not in body.model_fields else set())
        described = self.notes["parameters"].get(path, {})
        fates: dict[str, Fate] = {}
        for name in sorted(known):
            if name in body.model_fields:
                fates[name] = "partly" if name in described else "yes"
            else:
                fates[name] = "no" if name in getattr(body, "unsupported", {}) else "ignored"
        refused = sorted(set(getattr(body, "unsupported", {})) - known)
        return fates | dict.fromkeys(sorted(set(body.model_fields) - known), "own") | dict.fromkeys(refused, "no")

    def note_on_field(self, path: str, name: str, fate: Fate) -> Mapping[str, str]:
        """What is written about it. Raises KeyError where something that is refused or ignored has no reason."""
        described: Mapping[str, Mapping[str, str]] = self.notes["parameters"].get(path, {})
        if fate in ("no", "ignored"):
            reason: Mapping[str, str] = self.notes["refused" if fate == "no" else "ignored"][name]
            return reason
        return described.get(name, {"en": "", "zh": ""})


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
            notes = {"yes": {}, "partly": surface.notes["partly"].get(path, {}), "no": family["why"]}[fate]
            yield f"| `{path}` | {words[fate]} | {notes.get(language, '')} |"
    own = sorted(surface.served - told, key=lambda path: (path.partition(" ")[2], path))
    yield from ("", f"## {words['own paths']}", "")
    yield ", ".join(f"`{path}`" for path in own)
    for path in BODIES:
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
