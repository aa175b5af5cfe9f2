"""Bodies of `/v1/evals`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from chatwright.errors import InvalidRequestError
from chatwright.server.evals.criteria import CriteriaBody
from chatwright.server.evals.sources import DataSourceBody, without_nul
from chatwright.server.openai.metadata import Metadata
from chatwright.server.openai.schemas import Schema

Name = Annotated[str, StringConstraints(max_length=200), AfterValidator(without_nul)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True)


class CustomConfigBody(_Body):
    """Items of one's own, of a form that is told. `include_sample_schema`: whether models will answer them."""

    type: Literal["custom"]
    item_schema: Schema
    include_sample_schema: bool = False


class KeptConfigBody(_Body):
    """Chat completions that were kept. `logs` is what OpenAI calls them today."""

    type: Literal["stored_completions", "logs"]
    metadata: Metadata | None = None


class CreateEvalBody(_Body):
    """`POST /v1/evals`."""

    data_source_config: Annotated[CustomConfigBody | KeptConfigBody, Field(discriminator="type")]
    testing_criteria: CriteriaBody
    name: Name = ""
    metadata: Metadata | None = None


class UpdateEvalBody(_Body):
    """`POST /v1/evals/{eval_id}`: what is not sent stays as it is."""

    name: Name | None = None
    metadata: Metadata | None = None


class CreateRunBody(_Body):
    """`POST /v1/evals/{eval_id}/runs`."""

    data_source: DataSourceBody
    name: Name = ""
    metadata: Metadata | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_what_is_unknown(cls, body: Any) -> Any:
        source = body.get("data_source") if isinstance(body, dict) else None
        kind = source.get("type") if isinstance(source, dict) else None
        if isinstance(kind, str) and kind not in ("jsonl", "completions", "responses"):
            raise InvalidRequestError(
                "A data_source is of the type jsonl, completions or responses, not {kind}.",
                kind=kind[:60],
                param="data_source",
                code="invalid_value",
            )
        return body
