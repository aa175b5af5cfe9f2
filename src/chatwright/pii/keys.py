"""Keys whose issuers gave them a form: cloud and API keys, tokens of forges and chats, JSON web tokens, private keys."""

from __future__ import annotations

import re
from collections.abc import Iterator

from chatwright.pii.finding import Finding

_RUN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")

# Fixed letters that a key begins with → all of the key. To look for letters costs next to nothing where they are not. A key must
# begin its run of letters: that keeps `task-…` out, and the time linear, as each run is read once.
_FORMS = {
    "AKI": r"AKIA[0-9A-Z]{16}(?![0-9A-Za-z])|AKID[0-9A-Za-z]{28,36}(?![0-9A-Za-z])",  # Amazon, Tencent Cloud
    "ASIA": r"ASIA[0-9A-Z]{16}(?![0-9A-Za-z])",
    "LTAI": r"LTAI[0-9A-Za-z]{12,26}(?![0-9A-Za-z])",  # Alibaba Cloud
    "AIza": r"AIza[0-9A-Za-z_-]{35}",
    "GOCSPX-": r"GOCSPX-[0-9A-Za-z_-]{20,40}",
    "ya29.": r"ya29\.[0-9A-Za-z_-]{20,400}",
    "glpat-": r"glpat-[0-9A-Za-z_-]{18,64}",
    "sk-": r"sk-(?=[A-Za-z_-]{0,40}[0-9])[0-9A-Za-z_-]{20,255}",  # OpenAI, Anthropic, DeepSeek and others
    "xox": r"xox[abeprs]-[0-9A-Za-z-]{10,255}",
    "xapp-": r"xapp-[0-9A-Za-z-]{10,255}",
    "pypi-AgE": r"pypi-AgE[0-9A-Za-z_-]{50,255}",
    "SG.": r"SG\.[0-9A-Za-z_-]{16,32}\.[0-9A-Za-z_-]{16,64}",
    "eyJ": r"eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}(?:\.[0-9A-Za-z_-]*)?",  # RFC 7519
}
_FORMS_WITH_UNDERSCORE = {
    **{f"gh{kind}_": rf"gh{kind}_[0-9A-Za-z]{{30,255}}" for kind in "pousr"},
    "github_pat_": r"github_pat_[0-9A-Za-z_]{40,255}",
    "sk_live_": r"sk_live_[0-9A-Za-z]{16,255}",
    "rk_live_": r"rk_live_[0-9A-Za-z]{16,255}",
    "hf_": r"hf_[0-9A-Za-z]{30,64}",
    "npm_": r"npm_[0-9A-Za-z]{36}",
}
_COMPILED = {beginning: re.compile(form) for beginning, form in _FORMS.items()}
_COMPILED_WITH_UNDERSCORE = {beginning: re.compile(form) for beginning, form in _FORMS_WITH_UNDERSCORE.items()}
_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_BODY = re.compile(r"(?:[A-Za-z0-9+/=:,\s-]|\\[nr]){0,16384}")


def keys(text: str) -> Iterator[Finding]:
    """Keys that are recognised by their form alone."""
    forms = _COMPILED | _COMPILED_WITH_UNDERSCORE if "_" in text else _COMPILED
    for beginning, form in forms.items():
        start = text.find(beginning)
        while start >= 0:
            if (start == 0 or text[start - 1] not in _RUN) and (match := form.match(text, start)):
                yield Finding(start, match.end(), "key", match[0])
                start = match.end() - 1
            start = text.find(beginning, start + 1)
    if "PRIVATE KEY" in text:
        yield from _private_keys(text)


def _private_keys(text: str) -> Iterator[Finding]:
    """From BEGIN to END; where the END is missing, as far as what follows looks like a key."""
    done = 0
    for match in _BEGIN.finditer(text):
        if match.start() < done:
            continue
        body = _BODY.match(text, match.end())
        end = body.end() if body else match.end()
        if (close := text.find("-----END", match.end(), end + 8)) >= 0 and (last := text.find("-----", close + 8)) >= 0:
            end = min(last + 5, close + 64)
        done = end
        yield Finding(match.start(), end, "key", text[match.start() : end])
