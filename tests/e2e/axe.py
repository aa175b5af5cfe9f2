"""What axe-core finds wrong with a page, by the rules of WCAG 2.2 AA and good practice."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def violations(page: Page) -> list[str]:
    """Rule and element of each."""
    page.wait_for_timeout(300)  # colours fade for 0.15 s
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    result = page.evaluate("tags => axe.run({runOnly: tags})", TAGS)
    return [f"{rule['id']}: {node['html']}" for rule in result["violations"] for node in rule["nodes"]]
