"""What answers are graded by. Two kinds need no other model and are exact; the others are refused by their names."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, StringConstraints

from chatwright.errors import InvalidRequestError
from chatwright.evaluation.grading import MEASURES, Measure, passes, similarity
from chatwright.server.evals.templates import MAX_TEMPLATE, Template, parses_in

MOST_CRITERIA = 32
# Some measures take the product of both lengths.
LONGEST_TEXT = 100_000
COSINE = "cosine"
KINDS = {"string_check": "string-check-grader", "text_similarity": "text-similarity-grader"}

Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
TemplateText = Annotated[str, StringConstraints(max_length=MAX_TEMPLATE), AfterValidator(parses_in("testing_criteria"))]


class StringCheckBody(BaseModel):
    """Whether a text is another one, or has it in it."""

    model_config = ConfigDict(strict=True)

    type: Literal["string_check"]
    name: Name = "String check"
    input: TemplateText
    operation: Literal["eq", "ne", "like", "ilike"]
    reference: TemplateText


class TextSimilarityBody(BaseModel):
    """Whether a text is near enough to another one."""

    model_config = ConfigDict(strict=True)

    type: Literal["text_similarity"]
    name: Name = "Text similarity"
    input: TemplateText
    evaluation_metric: Measure | Literal["cosine"]
    reference: TemplateText
    pass_threshold: FiniteFloat


def _refuse_others(value: Any) -> Any:
    kind, measure = (value.get(name) if isinstance(value, dict) else None for name in ("type", "evaluation_metric"))
    if isinstance(kind, str) and kind not in KINDS:
        raise InvalidRequestError(
            "Testing criteria of the type {kind} are not supported here. There are: string_check and text_similarity.",
            kind=kind[:60],
            param="testing_criteria",
            code="unsupported_grader",
        )
    if kind == "text_similarity" and isinstance(measure, str) and measure not in (*MEASURES, COSINE):
        raise InvalidRequestError(
            "The evaluation_metric {name} is not supported here. There are: {names}.",
            name=measure[:60],
            names=", ".join((*MEASURES, COSINE)),
            param="testing_criteria",
            code="unsupported_grader",
        )
    return value


CriterionBody = Annotated[
    Annotated[StringCheckBody | TextSimilarityBody, Field(discriminator="type")], BeforeValidator(_refuse_others)
]
CriteriaBody = Annotated[list[CriterionBody], Field(fail_fast=True, min_length=1, max_length=MOST_CRITERIA)]


def named(criteria: Sequence[StringCheckBody | TextSimilarityBody]) -> list[dict[str, Any]]:
    """As they are kept: each with an id, as names may be the same."""
    return [{**each.model_dump(), "id": f"{each.name}-{uuid.uuid4()}"} for each in criteria]


@dataclass(frozen=True)
class Verdict:
    """What a criterion says of an item."""

    criterion: Criterion
    score: float
    passed: bool

    def shown(self) -> dict[str, Any]:
        """As the wire shows it."""
        return {
            "name": self.criterion.id,
            "type": KINDS[self.criterion.kind],
            "score": self.score,
            "passed": self.passed,
            "sample": None,
        }


@dataclass(frozen=True)
class Criterion:
    """One of them, ready for use. `how`: the operation or the measure."""

    id: str
    kind: str
    how: Any
    input: Template
    reference: Template
    threshold: float

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Criterion:
        """From what was kept."""
        return cls(
            id=kept["id"],
            kind=kept["type"],
            how=kept.get("operation") or kept["evaluation_metric"],
            input=Template.parse(kept["input"]),
            reference=Template.parse(kept["reference"]),
            threshold=kept.get("pass_threshold", 1.0),
        )

    @property
    def wants_sample(self) -> bool:
        """Whether it looks at what a model answered."""
        return "sample" in self.input.namespaces | self.reference.namespaces

    @property
    def wants_vectors(self) -> bool:
        """Whether it can only be graded with an encoder."""
        return bool(self.how == COSINE)

    def texts(self, scope: Mapping[str, Any]) -> tuple[str, str]:
        """What is compared with what. Raises EvaluationError."""
        return self.input.render(scope, LONGEST_TEXT), self.reference.render(scope, LONGEST_TEXT)

    def grade(self, text: str, reference: str) -> Verdict:
        """By anything but vectors."""
        if self.kind == "string_check":
            passed = passes(self.how, text, reference)
            return Verdict(self, float(passed), passed)
        return self.verdict(similarity(self.how, text, reference))

    def verdict(self, score: float) -> Verdict:
        """By how near two texts are."""
        return Verdict(self, score, score >= self.threshold)
