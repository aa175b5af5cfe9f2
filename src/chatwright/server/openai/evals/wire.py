"""Evals, runs and items as OpenAI's objects, and how the API's description shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from chatwright.server.evals.sampling import NO_ERROR
from chatwright.store.evals.runs import NewItem
from chatwright.store.evals.work import tallies_of
from chatwright.store.tables import Eval, EvalItem, EvalRun

# What templates find in a sample.
SAMPLE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "input": {"type": "array", "items": {"type": "object"}},
        "output_text": {"type": "string"},
        "output_json": {},
        "output_tools": {"type": "array", "items": {"type": "object"}},
        "finish_reason": {"type": "string"},
    },
    "required": ["output_text"],
}


def eval_object(row: Eval) -> dict[str, Any]:
    """An eval."""
    return {
        "object": "eval",
        "id": row.id,
        "name": row.name,
        "created_at": row.created_at,
        "data_source_config": _config(orjson.loads(row.source)),
        "testing_criteria": orjson.loads(row.criteria),
        "metadata": _metadata(row.user_metadata),
    }


def _config(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Which items the eval is about, as a schema of what templates may name."""
    is_custom = kept["type"] == "custom"
    properties = {"item": kept["item_schema"] if is_custom else {"type": "object"}}
    if not is_custom or kept["include_sample_schema"]:
        properties["sample"] = SAMPLE_SCHEMA
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": kept["type"], "schema": schema} | ({} if is_custom else {"metadata": kept["metadata"]})


def run_object(
    run: EvalRun, criteria: Sequence[str], address: str, content: Sequence[NewItem] | None = None
) -> dict[str, Any]:
    """A run. `criteria`: their ids. `content`: the rows that came with the request, where they are to be shown."""
    source, tallies = orjson.loads(run.source), tallies_of(run)
    if content is not None:
        source["source"]["content"] = [
            {"item": orjson.loads(item.content)} | ({} if item.given is None else {"sample": orjson.loads(item.given)})
            for item in content
        ]
    usage = [
        {
            "model_name": model,
            "invocation_count": calls,
            "prompt_tokens": prompt,
            "cached_tokens": cached,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        for model, (calls, prompt, cached, completion) in tallies["models"].items()
    ]
    results = []
    for criterion in criteria:
        passed, failed = tallies["criteria"].get(criterion, (0, 0))
        results.append({"testing_criteria": criterion, "passed": passed, "failed": failed})
    return {
        "object": "eval.run",
        "id": run.id,
        "eval_id": run.eval_id,
        "name": run.name,
        "status": run.status,
        "created_at": run.created_at,
        "model": run.model or "",
        "data_source": source,
        "result_counts": {
            "total": run.n_passed + run.n_failed + run.n_errored,
            "passed": run.n_passed,
            "failed": run.n_failed,
            "errored": run.n_errored,
        },
        "per_testing_criteria_results": results,
        "per_model_usage": usage,
        "report_url": f"{address}/v1/evals/{run.eval_id}/runs/{run.id}/output_items",
        "error": {"code": run.error_code or "", "message": run.error_message or ""} if run.error_code else NO_ERROR,
        "metadata": _metadata(run.user_metadata),
    }


def item_object(item: EvalItem, run: EvalRun) -> dict[str, Any]:
    """What became of an item."""
    return {
        "object": "eval.run.output_item",
        "id": item.id,
        "eval_id": run.eval_id,
        "run_id": run.id,
        "created_at": item.created_at,
        "status": item.status,
        "datasource_item": orjson.loads(item.content),
        "datasource_item_id": item.number,
        "results": orjson.loads(item.results or "[]"),
        "sample": orjson.loads(item.sample or "{}"),
    }


def _metadata(kept: str | None) -> dict[str, str] | None:
    return None if kept is None else orjson.loads(kept)


class _Described(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class DescribedConfig(_Described):
    """Which items the eval is about."""

    type: Literal["custom", "stored_completions", "logs"]
    item_and_sample: dict[str, Any] = Field(alias="schema")
    metadata: dict[str, str] | None = None


class DescribedEval(_Described):
    """An eval."""

    object: Literal["eval"]
    id: str
    name: str
    created_at: int
    data_source_config: DescribedConfig
    testing_criteria: list[dict[str, Any]]
    metadata: dict[str, str] | None


class EvalCounts(_Described):
    """Items of which something became."""

    total: int
    passed: int
    failed: int
    errored: int


class CriterionCounts(_Described):
    """What a criterion, by its id, said of them."""

    testing_criteria: str
    passed: int
    failed: int


class EvalModelUsage(_Described):
    """What a model did for a run."""

    model_name: str
    invocation_count: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int


class EvalFailure(_Described):
    """Both are empty where nothing failed."""

    code: str
    message: str


class DescribedRun(_Described):
    """A run."""

    object: Literal["eval.run"]
    id: str
    eval_id: str
    name: str
    status: Literal["queued", "in_progress", "completed", "canceled", "failed"]
    created_at: int
    model: str
    data_source: dict[str, Any]
    result_counts: EvalCounts
    per_testing_criteria_results: list[CriterionCounts]
    per_model_usage: list[EvalModelUsage]
    report_url: str
    error: EvalFailure
    metadata: dict[str, str] | None


class DescribedOutputItem(_Described):
    """What became of an item."""

    object: Literal["eval.run.output_item"]
    id: str
    eval_id: str
    run_id: str
    created_at: int
    status: Literal["pass", "fail", "error"]
    datasource_item: dict[str, Any]
    datasource_item_id: int
    results: list[dict[str, Any]]
    sample: dict[str, Any]


class _Page(_Described):
    object: Literal["list"]
    first_id: str
    last_id: str
    has_more: bool


class EvalPage(_Page):
    """A page of evals."""

    data: list[DescribedEval]


class RunPage(_Page):
    """A page of runs."""

    data: list[DescribedRun]


class OutputItemPage(_Page):
    """A page of items."""

    data: list[DescribedOutputItem]


class DeletedEval(_Described):
    """It is gone, with its runs."""

    object: Literal["eval.deleted"] = "eval.deleted"
    deleted: Literal[True] = True
    eval_id: str


class DeletedRun(_Described):
    """It is gone, with its items."""

    object: Literal["eval.run.deleted"] = "eval.run.deleted"
    deleted: Literal[True] = True
    run_id: str
