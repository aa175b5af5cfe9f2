"""The literal code of the articles runs unmodified: openai 0.28.1 with nothing but OPENAI_API_BASE set, against a real server
with the default model; and the same calls with the newest client, sync and async."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from tests.serving import Server

pytestmark = pytest.mark.model

HERE = Path(__file__).parent
OLD_CLIENT = HERE.parents[1] / ".venv" / "openai-0.28"
# How often each article runs; answers are sampled, so one run would prove little.
RUNS = int(os.environ.get("CHATWRIGHT_ARTICLE_RUNS", "1"))
# What an answer on the topic mentions. Article 002 asks for a single token: any word will do.
TOPIC = {
    "000": re.compile(r"einstein|physic|relativity|scientist|theor|born|german", re.IGNORECASE),
    "002": re.compile(r"\w"),
    "003": re.compile(r"python|programming|编程|language|语言|history|历史", re.IGNORECASE),
}
PROMPTS = {
    "000": ("Who was Albert Einstein?", 150, 0.7),
    "002": ("What is the capital of France?", 1, 0.5),
    "003": ("请问你知道Python编程语言的历史？", 150, 0.7),
}


@pytest.mark.parametrize("article", sorted(TOPIC))
def test_the_articles_code_runs_unmodified(article: str, default_server: Server) -> None:
    assert OLD_CLIENT.is_dir(), "openai 0.28.1 is not installed: run `make install-dev`"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(OLD_CLIENT),
        "PYTHONIOENCODING": "utf-8",
        "OPENAI_API_BASE": f"{default_server.url}/v1",
    }
    if article == "000":
        environment["OPENAI_API_KEY"] = "your_api_key_here"
    for _ in range(RUNS):
        done = subprocess.run(
            [sys.executable, HERE / f"{article}.py"],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert TOPIC[article].search(done.stdout), f"off topic: {done.stdout!r}"


@pytest.mark.parametrize("article", sorted(TOPIC))
def test_the_newest_client_gets_the_same(article: str, default_server: Server) -> None:
    prompt, max_tokens, temperature = PROMPTS[article]
    client = openai.OpenAI(base_url=f"{default_server.url}/v1", api_key="your_api_key_here")
    for _ in range(RUNS):
        answer = client.completions.create(
            model="text-davinci-002", prompt=prompt, max_tokens=max_tokens, n=1, stop=None, temperature=temperature
        )
        assert TOPIC[article].search(answer.choices[0].text), f"off topic: {answer.choices[0].text!r}"
        assert answer.model == "text-davinci-002"


@pytest.mark.parametrize("article", sorted(TOPIC))
async def test_the_newest_client_gets_the_same_async(article: str, default_server: Server) -> None:
    prompt, max_tokens, temperature = PROMPTS[article]
    async with openai.AsyncOpenAI(base_url=f"{default_server.url}/v1", api_key="your_api_key_here") as client:
        for _ in range(RUNS):
            answer = await client.completions.create(
                model="text-davinci-002", prompt=prompt, max_tokens=max_tokens, n=1, stop=None, temperature=temperature
            )
            assert TOPIC[article].search(answer.choices[0].text), f"off topic: {answer.choices[0].text!r}"
