"""Templates are programs from strangers: they render as Transformers renders them, and can neither hang, swell nor escape."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import datetime

import psutil
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from chatwright.tokenizer import TemplateRenderer
from chatwright.tokenizer.renderer import TemplateFailedError

MESSAGES = [{"role": "user", "content": '<é> & "你" 🎉', "n": 1.5, "none": None, "yes": True}]


@pytest.mark.parametrize(
    "source",
    [
        "  {% if true %}\n  kept\n  {% endif %}\n\n",
        "{% for i in range(9) %}{% if i == 3 %}{% continue %}{% endif %}{% if i == 6 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        "{{ messages | tojson }} {{ messages | tojson(indent=2) }} {{ messages | tojson(separators=(',', ':')) }}",
        "{{ messages | tojson(ensure_ascii=true, sort_keys=true) }}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}!",
        "{% set ns = namespace(a=1) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}{{ dict(a=1).items() | list }}",
        "{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(messages[0].role) }}{{ missing }}{{ missing is defined }}",
        "{{ messages[0].none }} {{ messages[0].yes }} {{ messages[0].n }} {{ tools is none }} {{ documents is none }}",
    ],
)
def test_renders_what_transformers_renders(renderer, source):
    expected, _ = render_jinja_template([MESSAGES], chat_template=source, tools=None)
    variables = {"messages": MESSAGES, "tools": None, "documents": None, "add_generation_prompt": False}
    assert renderer.render(source, variables) == expected[0]


def test_tells_the_date(renderer):
    before = datetime.now().strftime("%Y-%m-%d")
    assert renderer.render("{{ strftime_now('%Y-%m-%d') }}", {}) in (before, datetime.now().strftime("%Y-%m-%d"))


def test_any_text_survives_the_way_there_and_back(renderer):
    text = "".join(map(chr, [*range(0x300), 0x2028, 0x2029, 0xFEFF, 0xFFFF, 0x1F600, 0x10FFFF]))
    assert renderer.render("{{ text }}", {"text": text}) == text


def test_large_conversations_render(renderer):
    text = "你好 hello 🎉" * 500_000
    assert renderer.render("{{ text }}", {"text": text}) == text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "longer than"),
        ("{{ 9 ** (9 ** 9) }}", "longer than"),
        ("{{ 'a' * 10**10 }}", "memory"),
        ("{% for i in range(3000) %}{{ 'a' * 10000 }}{% endfor %}", "too much text"),
        ("{{ range(10**9) }}", "ange"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "without end"),
        ("{{ ().__class__.__base__.__subclasses__() }}", "unsafe"),
        ("{{ raise_exception.__globals__['sys'] }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os.environ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ '{0.__class__.__mro__}'.format(1) }}", "unsafe"),
        ("{% set n = namespace(__class__=1) %}", "__class__"),
        ("{% set n = namespace() %}{% set n._x = 1 %}", "_x"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% endif %}", "line 1"),
    ],
)
def test_hostile_templates_are_refused_and_the_next_one_renders(source, reason):
    renderer = TemplateRenderer(time_limit_s=1)
    with pytest.raises(TemplateFailedError, match=reason) as caught:
        renderer.render(source, {"messages": []})
    assert caught.value.kind in ("refused", "failed")
    assert renderer.render("{{ a }}", {"a": "fine"}) == "fine"
    renderer.close()


def test_a_template_that_refuses_its_messages_is_told_from_a_broken_one(renderer):
    with pytest.raises(TemplateFailedError, match="no system") as caught:
        renderer.render("{{ raise_exception('no system') }}", {})
    assert caught.value.kind == "raised"


def test_a_killed_worker_is_replaced():
    renderer = TemplateRenderer()
    assert renderer.render("a", {}) == "a"
    for child in psutil.Process().children():
        if "template_worker.py" in " ".join(child.cmdline()) and child.pid == renderer._worker.process.pid:
            child.kill()
            child.wait()
    assert renderer.render("b", {}) == "b"
    renderer.close()


def test_threads_get_their_own_texts(renderer):
    answers: dict[int, list[str]] = {}

    def ask(number: int) -> None:
        answers[number] = [renderer.render("{{ a }}", {"a": f"{number} {i}"}) for i in range(20)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: [f"{number} {i}" for i in range(20)] for number in range(6)}


def test_the_worker_sees_no_secrets_of_the_environment(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    renderer = TemplateRenderer()
    renderer.render("a", {})
    assert "SECRET_KEY" not in psutil.Process(renderer._worker.process.pid).environ()
    renderer.close()


@pytest.mark.parametrize(
    "template", ["done", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"]
)
def test_the_worker_dies_with_its_parent_even_in_the_middle_of_a_loop(template):
    parent = (
        "import os, sys, threading, time\n"
        "from chatwright.tokenizer.renderer import TemplateRenderer\n"
        "renderer = TemplateRenderer(time_limit_s=1)\n"
        "renderer.render('a', {})\n"
        "print(renderer._worker.process.pid, flush=True)\n"
        f"threading.Thread(target=renderer.render, args=({template!r}, {{}}), daemon=True).start()\n"
        "time.sleep(0.2)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True, timeout=60)
    pid = int(done.stdout)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker outlives its parent"
        time.sleep(0.05)
