"""The server is killed (-9) while a run of an eval is under way: the next one goes on with the items that are left."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.server.harness import wait_until
from tests.server.test_fine_tuning_killed import PATIENCE_S, serving

N = 400

pytestmark = pytest.mark.timeout(900)


@pytest.mark.slow
def test_a_run_goes_on_after_a_kill(model_folder: Path, tmp_path: Path) -> None:
    criterion: Any = {
        "type": "string_check",
        "name": "not empty",
        "operation": "ne",
        "input": "{{sample.output_text}}",
        "reference": "",
    }
    with serving(model_folder, tmp_path / "home") as (process, client):
        made = client.evals.create(
            data_source_config={"type": "custom", "item_schema": {}, "include_sample_schema": True},
            testing_criteria=[criterion],
        )
        run = client.evals.runs.create(
            made.id,
            data_source={
                "type": "completions",
                "model": model_folder.name,
                "source": {"type": "file_content", "content": [{"item": {"n": number}} for number in range(N)]},
                "input_messages": {"type": "template", "template": [{"role": "user", "content": "{{item.n}} The"}]},
                "sampling_params": {"max_completion_tokens": 40},
            },
        )

        def n_done() -> int:
            return client.evals.runs.retrieve(run.id, eval_id=made.id).result_counts.total

        wait_until(lambda: n_done() >= 3, PATIENCE_S)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
    with serving(model_folder, tmp_path / "home") as (_, client):
        before = {item.id: item.to_dict() for item in client.evals.runs.output_items.list(run.id, eval_id=made.id)}
        assert len(before) >= 3
        wait_until(lambda: client.evals.runs.retrieve(run.id, eval_id=made.id).status == "completed", PATIENCE_S)
        done = client.evals.runs.retrieve(run.id, eval_id=made.id)
        assert done.result_counts.total == N
        assert done.result_counts.errored == 0
        assert done.per_model_usage[0].invocation_count == N
        after: dict[str, Any] = {
            item.id: item.to_dict() for item in client.evals.runs.output_items.list(run.id, eval_id=made.id, limit=100)
        }
        assert sorted(item["datasource_item_id"] for item in after.values()) == list(range(N))
        assert {id: after[id] for id in before} == before, "what was finished is not lost, nor done again"
