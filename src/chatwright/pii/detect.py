"""All detectors over one text, and the text with placeholders in place of what they found."""

from __future__ import annotations

from chatwright.pii.bank_card import bank_cards
from chatwright.pii.chinese_id import chinese_ids
from chatwright.pii.email import emails
from chatwright.pii.finding import Finding, without_overlaps
from chatwright.pii.fold import fold
from chatwright.pii.ip import addresses
from chatwright.pii.keys import keys
from chatwright.pii.numbers import zones
from chatwright.pii.phone import phones
from chatwright.pii.secrets import secrets

_OF_TEXT = (keys, secrets, emails, addresses)
_OF_NUMBERS = (chinese_ids, bank_cards, phones)


def find(text: str) -> list[Finding]:
    """Personal data in `text`, sorted, without overlaps. Full-width digits and letters count as plain ones."""
    folded = fold(text)
    findings = [finding for detector in _OF_TEXT for finding in detector(folded)]
    if numbers := zones(folded):
        findings += (finding for detector in _OF_NUMBERS for finding in detector(folded, numbers))
    found = without_overlaps(findings)
    if folded is text:
        return found
    return [Finding(f.start, f.end, f.kind, text[f.start : f.end]) for f in found]


def mask(text: str) -> tuple[str, list[Finding]]:
    """`text` with a placeholder such as `[EMAIL]` for each finding, and the findings, whose places are those in `text`."""
    findings = find(text)
    parts, end = [], 0
    for finding in findings:
        parts += [text[end : finding.start], finding.placeholder]
        end = finding.end
    return "".join([*parts, text[end:]]), findings
