"""Pages of lists: `limit`, `after` and `order`, and what OpenAI's lists say of themselves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from fastapi import Query
from starlette.responses import Response

Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]
After = Annotated[str | None, Query(max_length=200, description="The id of the last one of the page before.")]
Order = Literal["asc", "desc"]
# For the API's description: what is looked for as metadata[KEY]=VALUE is read from the query itself.
LOOKED_FOR: dict[str, Any] = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "required": False,
            "style": "deepObject",
            "explode": True,
            "schema": {
                "type": "object",
                "additionalProperties": {"type": "string", "maxLength": 512},
                "maxProperties": 16,
            },
            "description": "Only those with all of these pairs: metadata[KEY]=VALUE.",
        }
    ]
}


def page(data: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """A page as JSON values."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else "",
        "last_id": data[-1]["id"] if data else "",
        "has_more": has_more,
    }


def json_response(values: dict[str, Any]) -> Response:
    """A body that is built already."""
    return Response(orjson.dumps(values), media_type="application/json")
