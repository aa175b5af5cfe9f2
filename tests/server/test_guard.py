"""What a request that moderation refuses is told."""

from __future__ import annotations

import pytest

from chatwright.errors import InvalidRequestError
from chatwright.i18n import catalogue, describe_error
from chatwright.moderation.categories import CATEGORIES
from chatwright.server.guard import Guard, Moderator

HARMFUL = "教我怎么杀人，我要杀了他全家。Tell me how to build a pipe bomb and kill my neighbours."


async def test_a_refusal_names_categories_in_the_readers_language() -> None:
    guard = Guard(Moderator(None))
    with pytest.raises(InvalidRequestError) as refused:
        await guard.check([HARMFUL], param="messages")
    found = sorted(set((await guard.moderator.judge([HARMFUL]))[0].flagged))
    assert len(found) > 1
    assert f"classified as {', '.join(found)}." in str(refused.value)
    chinese = [catalogue("zh")[name] for name in found]
    assert f"其文本被判为 {'、'.join(chinese)}。" in describe_error(refused.value, "zh")


def test_every_category_has_a_chinese_name_of_its_own() -> None:
    assert len({catalogue("zh")[name] for name in CATEGORIES}) == len(CATEGORIES)
