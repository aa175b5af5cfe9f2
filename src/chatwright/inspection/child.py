"""The main of the process that looks inside a model: `python -m chatwright.inspection.child SOCKET PARENT`, started by a server.

It loads one model in float32 on the processor, and answers one question after the other until the server ends it, which is also how
a question is taken back: nothing stops PyTorch in the middle of a product.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import orjson

from chatwright.engine.process import wire
from chatwright.engine.process.failures import failure_of
from chatwright.engine.process.lifeline import die_with_parent
from chatwright.inspection.wire import Look, Looked, NotLooked

# Whoever waits for an answer comes before whoever looks at one.
NICENESS = 5
# Attention weights of one answer, some six bytes of JSON each.
MOST_WEIGHTS = 2_000_000


def main() -> None:
    """Answer until the server goes, or ends this process."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent(parent)
    os.nice(NICENESS)
    with socket.socket(fileno=descriptor) as sock:
        serve(sock)


def serve(sock: socket.socket) -> None:
    """Read questions and write answers, until the other side closes."""
    reader: wire.FrameReader[wire.Start | Look] = wire.FrameReader(wire.Start | Look)
    start: wire.Start | None = None
    subject: Any = None
    while data := sock.recv(1 << 16):
        for message in reader.feed(data):
            if isinstance(message, wire.Start):
                start = message
                continue
            assert start is not None, "the server says first what to load"
            try:
                subject = subject or _load(start)
                answer: Looked | NotLooked = Looked(look_inside(subject, message))
            except Exception as error:  # noqa: BLE001  the edge of this process: the server raises it again
                answer = NotLooked(failure_of(error))
            sock.sendall(wire.frame(answer))


def look_inside(subject: Any, look: Look) -> bytes:
    """The answer to one question, as JSON. subject: a `Subject`; this module is imported before PyTorch is."""
    from chatwright.inspection.explain import explain_ids, likeliest_answer, with_attention

    ids = list(look.prompt_ids)
    if look.answer_ids is not None:
        ids += look.answer_ids
    elif subject.writes:
        ids += likeliest_answer(subject, ids, look.max_tokens)
    explanation = explain_ids(subject, ids, len(look.prompt_ids), method=look.method, top=look.top)
    return orjson.dumps(with_attention(explanation, look.attention, MOST_WEIGHTS).to_json())


def _load(start: wire.Start) -> Any:
    logging.basicConfig(level=start.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    import torch

    from chatwright.inspection.subject import open_subject
    from chatwright.settings import Settings

    settings = Settings(**start.settings)
    torch.set_num_threads(settings.n_threads)
    adapter = next((Path(path) for path in start.adapters.values()), None)
    return open_subject(Path(start.path), start.name, settings, adapter)


if __name__ == "__main__":
    main()
