"""The child process that renders chat templates: untrusted programs, in Jinja's sandbox, with limits of the kernel.

Run as a file, not imported by the server: needs Jinja2 and the standard library only. One JSON value a line in and
out: {"source", "variables", "cuts", "time_limit_s", "max_chars"} → a list of {"text"} or {"error", "kind"}, one a cut.
A cut [n, add_generation_prompt] asks for the first n messages; null, for the variables as they are.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import IO, Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MEMORY_LIMIT_BYTES = 2**30

# Python and Jinja import some modules (codecs of escapes, error reporting, filters) at their first use only; that must
# happen before files are out of reach.
WARM_UP = (
    r"{% macro m(a) %}{{ a }}{% endmacro %}{% for i in x %}{{ m(i) ~ 'é\n\u4f60\N{BULLET}' }}{% endfor %}",
    "{% set n = namespace(a=1) %}{{ x | tojson(indent=1) }}{{ x | pprint }}{{ 'a b' | urlize }}",
    "{{ strftime_now('%d %B') }}{{ x | map('upper') | list }}",
    "{{ lipsum(1) }}{{ x | sort | join | wordwrap | xmlattr }}",
    "{{ undefined.attribute }}",
    "{{ x.__class__.__mro__ }}",
    "{% if %}",
)


class RaisedByTemplateError(TemplateError):
    """The template called `raise_exception`: it refuses these messages."""


class OutputTooLongError(Exception):
    """The template wrote more than it may."""


class Generation(Extension):
    """`{% generation %} … {% endgeneration %}`, which marks what a model is trained on: renders its body."""

    tags = {"generation"}  # noqa: RUF012 Jinja declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Macro) -> str:
        return caller()


class SafeNamespace(Namespace):
    """`namespace()` without attributes that begin with an underscore, which lead out of the sandbox."""

    def __init__(self, **attributes: Any) -> None:
        for name in attributes:
            refuse_underscore(name)
        super().__init__(**attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        refuse_underscore(name)
        super().__setitem__(name, value)


def refuse_underscore(name: str) -> None:
    """Raises SecurityError on names of attributes that are Python's own."""
    if name.startswith("_"):
        raise SecurityError(f"a template may not set {name!r} on a namespace")


def make_environment() -> ImmutableSandboxedEnvironment:
    """Jinja as Transformers configures it for chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )

    def raise_exception(message: object) -> NoReturn:
        raise RaisedByTemplateError(str(message))

    def strftime_now(format: str) -> str:
        return datetime.now().strftime(format)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # Jinja's own filter escapes HTML, which no model was trained on.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def make_dict(*pairs: Any, **items: Any) -> dict[Any, Any]:
        return dict(*pairs, **items)

    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "namespace": SafeNamespace,
        "dict": make_dict,
    }
    return environment


def render(template: Template, variables: dict[str, Any], max_chars: int) -> str:
    """The rendered template. Raises whatever the template raises, and OutputTooLongError."""
    pieces: list[str] = []
    n_chars = 0
    for piece in template.generate(variables):
        n_chars += len(piece)
        if n_chars > max_chars:
            raise OutputTooLongError
        pieces.append(piece)
    return "".join(pieces)


def answers_to(compile_template: Callable[[str], Template], request: dict[str, Any]) -> list[dict[str, str]]:
    """What the cuts of one request come to, up to the first that fails."""
    variables, answers = request["variables"], []
    for cut in request["cuts"]:
        own = {"messages": variables["messages"][: cut[0]], "add_generation_prompt": cut[1]} if cut else {}
        answers.append(answer(compile_template, request["source"], {**variables, **own}, request["max_chars"]))
        if "text" not in answers[-1]:
            break
    return answers


def answer(
    compile_template: Callable[[str], Template], source: str, variables: dict[str, Any], max_chars: int
) -> dict[str, str]:
    """What one rendering comes to. `kind`: "raised" by the template itself on these messages; "refused": no template
    should do that; "failed": anything else that went wrong while rendering.
    """
    try:
        return {"text": render(compile_template(source), variables, max_chars)}
    except RaisedByTemplateError as error:
        return {"kind": "raised", "error": str(error)}
    except TemplateSyntaxError as error:
        return {"kind": "refused", "error": f"line {error.lineno}: {error.message}"}
    except MemoryError:
        return {"kind": "refused", "error": "it needs too much memory"}
    except OutputTooLongError:
        return {"kind": "refused", "error": "it writes too much text"}
    except RecursionError:
        return {"kind": "refused", "error": "it calls itself without end"}
    except (SecurityError, OverflowError) as error:
        return {"kind": "refused", "error": str(error)}
    except Exception as error:  # noqa: BLE001 the edge of a process; templates can raise anything
        return {"kind": "failed", "error": f"{type(error).__name__}: {error}"}


def limit_process() -> None:
    """Ask the kernel to hold this process: memory, no files, no children, no core dumps. Where it cannot, go on."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {
        "RLIMIT_AS": MEMORY_LIMIT_BYTES,
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NOFILE": 3,
        "RLIMIT_NPROC": 0,
    }
    for name, value in limits.items():
        # macOS knows some of these names but refuses the values.
        with suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (value, value))


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the other side closes its end, as it does when it dies."""
    environment = make_environment()
    compile_template = lru_cache(maxsize=8)(environment.from_string)
    for source in WARM_UP:
        answer(compile_template, source, {"x": [1, "a"]}, 10**6)
    limit_process()
    set_timer = getattr(signal, "setitimer", None)
    answers.write(b"{}\n")
    answers.flush()
    for line in requests:
        request = json.loads(line)
        if set_timer:
            # The parent kills a slow worker. If it died meanwhile, the default action of SIGALRM ends us.
            set_timer(signal.ITIMER_REAL, request["time_limit_s"] + 1)
        reply = json.dumps(answers_to(compile_template, request)).encode()
        if set_timer:
            set_timer(signal.ITIMER_REAL, 0)
        answers.write(reply + b"\n")
        answers.flush()


if __name__ == "__main__":
    # Ctrl-C in a terminal goes to the whole group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(sys.stdin.buffer, sys.stdout.buffer)
