"""Personal data is found by kind, in English and Chinese, and what only looks like it is not."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.pii import KINDS, Finding, find, mask
from chatwright.pii.finding import without_overlaps
from tests.pii.corpus import FULL_WIDTH, MAKERS, NEGATIVES, labelled

N = 600
# Of Faker's data all is found in both languages but for a few addresses that look like versions.
RECALL, PRECISION = 0.99, 0.99

CASES = [
    ("我的电话是13812345678，邮箱zhang.san@qq.com请联系", ["13812345678", "zhang.san@qq.com"]),
    ("电话：+86 138-1234-5678", ["+86 138-1234-5678"]),
    ("（０１０）８２３４５６７８", ["（０１０）８２３４５６７８"]),
    ("座机010-62345678转801", ["010-62345678转801"]),
    ("电话：8888 6666", ["8888 6666"]),
    ("热线400-800-8888", ["400-800-8888"]),
    ("tel13800138000", ["13800138000"]),
    ("手机号码13800138000,13900139000", ["13800138000", "13900139000"]),
    ("Call (591)341-7776 or 206.269.0743x9150", ["(591)341-7776", "206.269.0743x9150"]),
    ("+44 20 7946 0958, 0044 20 7946 0958", ["+44 20 7946 0958", "0044 20 7946 0958"]),
    ("my phone number is 5272868387", ["5272868387"]),
    ("身份证１１０１０５１９４９１２３１００２Ｘ号", ["１１０１０５１９４９１２３１００２Ｘ"]),
    ("身份证：110105 19491231 002x", ["110105 19491231 002x"]),
    ("身份证号130503670401001", ["130503670401001"]),
    ("4111 1111 1111 1111, 3782-822463-10005", ["4111 1111 1111 1111", "3782-822463-10005"]),
    ("from 8.8.8.8 and http://1.2.3.4/x and 2001:4860:4860::8888", ["8.8.8.8", "1.2.3.4", "2001:4860:4860::8888"]),
    ("用户登录IP8.8.4.4", ["8.8.4.4"]),
    ("seen at 81.2.69.0 and 185.199.108.0", ["81.2.69.0", "185.199.108.0"]),
    ("dns 8.8.8.8, remote_addr=8.26.4.0; 来自4.2.2.2，1.1.1.1:443", ["8.8.8.8", "8.26.4.0", "4.2.2.2", "1.1.1.1"]),
    ("AKIAIOSFODNN7EXAMPLE", ["AKIAIOSFODNN7EXAMPLE"]),
    ("OPENAI_API_KEY=sk-abcDEF1234567890abcDEF", ["sk-abcDEF1234567890abcDEF"]),
    ("api_key: 'q8W3nD0fP2kL5vX7zR1t'", ["q8W3nD0fP2kL5vX7zR1t"]),
    ("密码是Abc12345。password: hunter2x", ["Abc12345", "hunter2x"]),
    ("https://ann:pw@x.org?mail=bob@example.com", ["pw@x.org", "bob@example.com"]),
    ("O'Brien <o'brien@example.ie>", ["o'brien@example.ie"]),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_found(text: str, expected: list[str]) -> None:
    assert [finding.text for finding in find(text)] == expected


@pytest.mark.parametrize("text", NEGATIVES)
def test_not_found(text: str) -> None:
    assert find(text) == []


@pytest.mark.parametrize("locale", list(MAKERS))
def test_recall_and_precision_by_kind(locale: str) -> None:
    right: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for example in labelled(locale, N):
        expected, found = Counter(example.expected), Counter((f.kind, f.text) for f in find(example.text))
        right.update(kind for kind, _ in (expected & found).elements())
        missed.update(kind for kind, _ in (expected - found).elements())
        wrong.update(kind for kind, _ in (found - expected).elements())
    recall = {kind: right[kind] / (right[kind] + missed[kind]) for kind in MAKERS[locale]}
    precision = {kind: right[kind] / max(1, right[kind] + wrong[kind]) for kind in MAKERS[locale]}
    figures = f"{locale}: recall {recall}, precision {precision}, n {dict(right + missed)}"
    print(figures)
    assert min(recall.values()) >= RECALL, figures
    assert min(precision.values()) >= PRECISION, figures


def test_a_private_key_is_found_whole_and_without_its_end() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/x=\nabc=\n-----END RSA PRIVATE KEY-----"
    assert [f.text for f in find(f"a {key} tail")] == [key]
    [cut] = find(f"{key[:50]}。然后")
    assert cut.text == key[:50]
    assert len(find(f"{key}\n{key}")) == 2


def test_what_identifies_nobody_stays() -> None:
    text = "ping 192.168.1.20, ip=10.1.2.3, from 192.168.1.17 port 22, 127.0.0.1, 203.0.113.7, ::1, fe80::1 and 2001:db8::1"
    assert find(text) == []


def test_masking_leaves_the_rest_as_it_was() -> None:
    text = "电话１３８１２３４５６７８，邮箱a.b@example.com，ip 8.8.8.8。"
    masked, findings = mask(text)
    assert masked == "电话[PHONE]，邮箱[EMAIL]，ip [IP]。"
    assert [text[f.start : f.end] for f in findings] == [f.text for f in findings]
    assert mask(masked) == (masked, [])
    assert mask("nothing") == ("nothing", [])


WRITTEN = (
    "13812345678|@|a@b.com|1.2.3.4|电话| |-|+|(|)|.|x|：|110105|19491231002X|sk-|4111|1111|key=|密码|::|ff|"
    "-----BEGIN PRIVATE KEY-----|转|０|eyJ|https://|=|8.8.8.8"
)
PIECES = st.sampled_from(WRITTEN.split("|"))


@given(st.lists(PIECES | st.text(max_size=6), max_size=20).map("".join))
def test_findings_are_sorted_apart_and_true_to_the_text(text: str) -> None:
    masked, findings = mask(text)
    end = 0
    for finding in findings:
        assert end <= finding.start < finding.end <= len(text)
        assert text[finding.start : finding.end] == finding.text
        assert finding.kind in KINDS
        end = finding.end
    rest = masked
    for finding in findings:
        assert f"[{finding.kind.upper()}]" in rest
    assert len(masked) == len(text) + sum(len(f.kind) + 2 - len(f.text) for f in findings)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9), st.sampled_from(KINDS))))
def test_of_overlapping_findings_the_surer_kind_counts(spans: list[tuple[int, int, str]]) -> None:
    findings = [Finding(start, start + n, kind, "") for start, n, kind in spans]  # type: ignore[arg-type]
    kept = without_overlaps(findings)
    assert all(a.end <= b.start for a, b in pairwise(kept))
    for finding in findings:
        rivals = [k for k in kept if k.start < finding.end and finding.start < k.end]
        assert any(KINDS.index(rival.kind) <= KINDS.index(finding.kind) for rival in rivals)


def test_full_width_is_found_as_plain() -> None:
    for example in labelled("zh_CN", 60, seed=3):
        plain = [f.kind for f in find(example.text)]
        assert [f.kind for f in find(example.text.translate(FULL_WIDTH))] == plain
