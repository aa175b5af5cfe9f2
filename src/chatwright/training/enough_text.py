"""Whether the text is enough for the parameters asked for; where it is not, the nearest size that it is enough for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from chatwright.errors import UsageError
from chatwright.training.nearest import nearest_size
from chatwright.training.recipe import Recipe
from chatwright.training.request import Request

# More parameters than this for each token of the text learn it by heart and nothing else: 400 times as many as Hoffmann et al.
# (2022) find best, one for 20 tokens.
MOST_PARAMETERS_PER_TOKEN = 20.0
# A smaller vocabulary cuts the text into more tokens, so that more may be enough than the refused recipe's own tokens allow.
MORE_TOKENS = 1.25


def refuse_too_little_text(recipe: Recipe, resolved: Callable[[Request], Recipe], *, share: float = 1.0) -> None:
    """Raises UsageError. `resolved`: the recipe of a request, with its tokens. `share`: of the parameters allowed, what the size
    that is named may have; less than 1 where its tokens are an estimate."""
    most = recipe.n_tokens * MOST_PARAMETERS_PER_TOKEN
    request = recipe.request
    if request.size is None or request.size_is_settled or recipe.n_parameters <= most:
        return

    def fits(size: int) -> bool:
        smaller = resolved(replace(request, size=size))
        return smaller.n_parameters <= share * smaller.n_tokens * MOST_PARAMETERS_PER_TOKEN

    nearest = nearest_size(min(recipe.n_parameters, MORE_TOKENS * most), fits)
    if nearest is None:
        raise UsageError(
            "The text has {n_tokens} tokens, too few for {n_parameters} parameters and for the smallest model that its vocabulary"
            " leaves room for: they would learn it by heart and nothing else. Prepare more text.",
            n_tokens=f"{recipe.n_tokens:,}",
            n_parameters=f"{recipe.n_parameters:,}",
        )
    raise UsageError(
        "The text has {n_tokens} tokens, too few for {n_parameters} parameters: they would learn it by heart and nothing else."
        " Take --size {nearest} or smaller, or prepare more text.",
        n_tokens=f"{recipe.n_tokens:,}",
        n_parameters=f"{recipe.n_parameters:,}",
        nearest=nearest,
    )
