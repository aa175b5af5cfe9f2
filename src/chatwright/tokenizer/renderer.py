"""Renders chat templates in a child process that can be killed: a thread that loops can not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chatwright.errors import EngineError
from chatwright.tokenizer.line_worker import LineWorker, WorkerBrokenError, WorkerStartError


class TemplateFailedError(Exception):
    """A template did not render. `kind`: "raised", "refused" or "failed", as `template_worker.answer` says."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class TemplateRenderer:
    """The one renderer of chat templates. Starts its worker at the first use, again after it had to be killed.

    time_limit_s: for one rendering. Safe to use from several threads; they take turns.
    """

    def __init__(self, *, time_limit_s: float = 2.0) -> None:
        self.time_limit_s = time_limit_s
        self._worker = LineWorker(Path(__file__).with_name("template_worker.py"))

    def render(self, source: str, variables: Mapping[str, Any]) -> str:
        """The template `source` rendered with JSON-like `variables`.

        Raises TemplateFailedError when the template does not render, takes too long, or needs too much memory.
        """
        return self.render_cuts(source, variables, [None])[0]

    def render_cuts(
        self, source: str, variables: Mapping[str, Any], cuts: Sequence[tuple[int, bool] | None]
    ) -> list[str]:
        """`render` once for each cut (n, add_generation_prompt), with the first n of variables["messages"]; in one exchange
        with the worker, as thousands of conversations are rendered before a training.
        """
        encoded = json.dumps(variables)
        # No honest template repeats its messages more than a few times.
        max_chars = 2**20 + 4 * (len(encoded) + len(source))
        limit_s = self.time_limit_s * len(cuts)
        settings = json.dumps({"source": source, "cuts": cuts, "time_limit_s": limit_s, "max_chars": max_chars})
        line = f'{settings[:-1]}, "variables": {encoded}}}\n'.encode()
        try:
            replies = json.loads(self._worker.ask(line, limit_s=limit_s, max_bytes=12 * max_chars * len(cuts)))
            texts = [reply["text"] for reply in replies if "text" in reply]
        except TimeoutError as error:
            raise TemplateFailedError("refused", f"it takes longer than {limit_s:g} s") from error
        except WorkerStartError as error:
            raise EngineError("The process that renders chat templates does not start.") from error
        except (WorkerBrokenError, ValueError, TypeError) as error:  # it died, or was made to write something else
            self._worker.close()
            raise TemplateFailedError("refused", "it broke the process that renders it") from error
        if len(texts) < len(cuts):
            raise TemplateFailedError(replies[-1]["kind"], replies[-1]["error"])
        return texts

    def close(self) -> None:
        """End the worker; the next `render` would start another."""
        self._worker.close()
