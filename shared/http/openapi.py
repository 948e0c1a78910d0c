"""What an OpenAPI document says of problems."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from shared.http.problems import MEDIA_TYPE, ProblemDocument, ProblemKind


def problem_responses(*kinds: ProblemKind) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems, with an example of each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        response = responses.setdefault(
            kind.status,
            {
                "description": HTTPStatus(kind.status).phrase,
                "content": {
                    MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}, "examples": {}}
                },
            },
        )
        if kind.retry_after_s is not None:
            description = "Seconds to wait before trying again"
            response["headers"] = {"Retry-After": {"description": description, "schema": {"type": "integer"}}}
        examples = response["content"][MEDIA_TYPE]["examples"]
        examples[kind.slug or "problem"] = {"value": kind.document(kind.example, "/the/path")}
    return responses


def add_problem_schema(document: dict[str, Any]) -> None:
    """Add to an OpenAPI document the schemas that `problem_responses` refers to."""
    schema = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs")
    document.setdefault("components", {}).setdefault("schemas", {}).update(
        {**definitions, "ProblemDocument": schema}
    )
