"""Texts whose personal data are known, made by Faker in English and Chinese, and texts full of numbers that are none."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass

from faker import Faker

from chatwright.pii import Kind

FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")


@dataclass(frozen=True)
class Labelled:
    """A text and the personal data in it: (kind, as written)."""

    text: str
    expected: tuple[tuple[Kind, str], ...]


Make = Callable[[Faker, random.Random], str]


def _grouped(number: str, separator: str) -> str:
    return separator.join(number[i : i + 4] for i in range(0, len(number), 4))


def card(fake: Faker, rng: random.Random) -> str:
    prefix, length = rng.choice(
        [("4", 16), ("51", 16), ("2720", 16), ("6011", 16), ("3530", 16), ("622202", 19), ("621226", 16), ("37", 15)]
    )
    body = prefix + "".join(rng.choices(string.digits, k=length - len(prefix) - 1))
    number = body + str(_check_digit(body))
    return _grouped(number, rng.choice(["", " ", "-"])) if length == 16 else number


def _check_digit(body: str) -> int:
    """Luhn's, by the table of doubled digits."""
    total = sum(int("0246813579"[int(d)]) if i % 2 == 0 else int(d) for i, d in enumerate(reversed(body)))
    return -total % 10


def chinese_phone(fake: Faker, rng: random.Random) -> str:
    mobile = fake.phone_number()
    return rng.choice(
        [
            mobile,
            mobile,
            f"{mobile[:3]}-{mobile[3:7]}-{mobile[7:]}",
            f"{mobile[:3]} {mobile[3:7]} {mobile[7:]}",
            f"+86 {mobile}",
            f"+86-{mobile[:3]}-{mobile[3:7]}-{mobile[7:]}",
            mobile.translate(FULL_WIDTH),
            f"010-{rng.randrange(60000000, 89999999)}",
            f"(0571){rng.randrange(2000000, 8999999)}{rng.randrange(10)}",
            f"0755 {rng.randrange(2000, 8999)} {rng.randrange(1000, 9999)}",
        ]
    )


def international_phone(fake: Faker, rng: random.Random) -> str:
    return rng.choice(["+44 20 7946 0{0:03d}", "+49 30 901820{0:03d}", "+33 1 70 18 9{0:03d}"]).format(
        rng.randrange(1000)
    )


def api_key(fake: Faker, rng: random.Random) -> str:
    def letters(n: int, alphabet: str = string.ascii_letters + string.digits) -> str:
        return "".join(rng.choices(alphabet, k=n))

    return rng.choice(
        [
            "AKIA" + letters(16, string.ascii_uppercase + string.digits),
            "ghp_" + letters(36),
            "sk-proj-" + letters(40) + "7",
            "xoxb-" + letters(12, string.digits) + "-" + letters(24),
            "AIza" + letters(35),
            f"eyJ{letters(20)}.eyJ{letters(30)}.{letters(40)}",
            "-----BEGIN PRIVATE KEY-----\n" + letters(64) + "\n" + letters(40) + "\n-----END PRIVATE KEY-----",
        ]
    )


def global_ipv6(fake: Faker, rng: random.Random) -> str:
    return f"{rng.randrange(0x2100, 0x3000):x}:{fake.ipv6().split(':', 1)[1]}"


MAKERS: dict[str, dict[Kind, Make]] = {
    "en_US": {
        "email": lambda fake, rng: rng.choice([fake.email, fake.company_email, fake.free_email])(),
        "phone": lambda fake, rng: rng.choice(
            [fake.basic_phone_number, fake.phone_number, lambda: international_phone(fake, rng)]
        )(),
        "bank_card": card,
        "ip": lambda fake, rng: rng.choice(
            [fake.ipv4_public(), f"2{rng.randrange(0x100, 0x1000):03x}:" + fake.ipv6().split(":", 1)[1]]
        ),
        "key": api_key,
    },
    "zh_CN": {
        "email": lambda fake, rng: fake.email(),
        "phone": chinese_phone,
        "chinese_id": lambda fake, rng: fake.ssn(min_age=10, max_age=90),
        "bank_card": card,
        "ip": lambda fake, rng: fake.ipv4_public(),
        "key": api_key,
    },
}
TEMPLATES: dict[str, dict[Kind, list[str]]] = {
    "en_US": {
        "email": ["Write to {0}.", "<{0}>", "mailto:{0}?subject=hi", "Contact {0}, please", "email={0}&x=1"],
        "phone": ["Call {0} today.", "Phone: {0}", "My number is {0}, ask for Ann.", "Tel {0}/day", "fax {0};"],
        "bank_card": ["Card {0}, exp 12/27.", "I paid with {0}.", "card no. {0}"],
        "ip": ["Request from {0} at noon.", "host={0}", "The server {0} is down.", "[{0}]"],
        "key": ["key: {0}", "export TOKEN={0}", "Use {0} to log in.", 'auth("{0}")'],
    },
    "zh_CN": {
        "email": ["请发邮件到{0}联系我", "邮箱：{0}。", "我的邮箱是{0}，谢谢"],
        "phone": ["我的电话是{0}请回电", "手机{0}。", "联系方式：{0}，张先生", "有事打{0}找我", "电话（{0}）"],
        "chinese_id": ["身份证号{0}。", "证件号码：{0}，请核对", "我叫王伟{0}男"],
        "bank_card": ["卡号{0}，户名李娜", "请转账到{0}。"],
        "ip": ["来自{0}的请求", "服务器地址：{0}。", "登录IP{0}异常"],
        "key": ["密钥是{0}。", "令牌：{0}，勿外传", "用{0}登录"],
    },
}
FILLER = {
    "en_US": ["It rained all day.", "In 2021, 12 of 345 rows (3.5 %) were bad.", "See section 4.2 of v1.2.3."],
    "zh_CN": ["今天天气很好。", "2021年共有1234人参加，占3.5%。", "版本号1.2.3.4，第3章第2节。"],
}

# Numbers, names and code that look like personal data and are not.
NEGATIVES = [
    "Version 1.2.3.4 and v10.0.19041.1 and Chrome/91.0.4472.124 and build 8.8.4.4",
    "Updated 1.2.3.0, 8.4.120.0 and 119.0.0.0; released 8.8.8.8, 6.1.7.2: 12 changes, not 192.31.196.0/24",
    "Section 3.2.1.4, table 1.1.1.1, OID 1.3.6.1.4.1.311.21.8",
    "2021-03-04 12:30:45.123456 and 20210304123045 and 2021/03/04 and 03.04.2021",
    "1600000000 1600000000000 0x1f3a 3.141592653589793 2.718281828459045",
    "Order no. 13800138000, invoice 4111111111111111, tracking number 13912345678",
    "订单号13812345678，运单号：4111111111111111，流水号 13987654321，编号13700000000",
    "ISBN 978-7-115-54608-1, ISSN 1234-5678, DOI 10.1000/182, UPC 036000291452",
    "192.168.0.1 10.0.0.1 127.0.0.1 172.16.5.4 0.0.0.0 255.255.255.0 ::1 fe80::1 169.254.1.1 224.0.0.1",
    "12:30:45 a::b std::vector<int>::size_type 00:1B:44:11:3A:B7 1:2:3",
    "@angular/core lodash@4.17.21 logo@2x.png git@github.com:org/repo.git x@y.transpose user@localhost @user",
    "task-force-of-the-year risk-1234 disk-usage ask-me-anything sk-learn xoxo hf_hub npm_config",
    "api_key = os.environ['API_KEY']; token: str; secret=<your-secret>; password=changeme1; key = value1234567",
    'password: Optional[str] = None\ntoken = "YOUR_TOKEN_1234567890"\nAPI_KEY=${API_KEY_1}\nmonkey = abc123456789',
    "密码错误，请重新输入。令牌桶算法。密码长度为8到16位。口令：请输入",
    "1,234,567,890 and 12 345 678 and 100 200 300 4000 500 and 99999999999",
    "price $13800138000, 人民币13800138000元, 金额：13900139000",
    "sha256 4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865 commit 13800138000abcdef",
    "uuid 550e8400-e29b-41d4-a716-446655440000 id_13800138000_x 13800138000px",
    "lat 39.90733345 lon 116.39127812; [200 300 4000, 212 555 1234 999]; 110105194912310021",
    "11010519491331002X 000000194912310021 123456789012345 1234567890123456",
    "matrix 4242 4242 4242 4241 and 5555-5555-5555-4445 fail the checksum",
    "π=3.14159265358979323846264338327950288 e=2.718281828 100.100.100 1.2.3 1.2.3.4.5",
    "第1380013800期 共12345678条记录 2000000000000000 第 1.1.1.1 节 RFC 8259 GB/T 11643-1999",
]


def labelled(locale: str, n: int, seed: int = 7) -> list[Labelled]:
    """`n` texts in one language, each with one to three pieces of personal data among harmless sentences."""
    fake, rng = Faker(locale), random.Random(seed)
    fake.seed_instance(seed)
    texts = []
    for _ in range(n):
        parts, expected = [], []
        for _ in range(rng.randrange(1, 4)):
            kind = rng.choice(list(MAKERS[locale]))
            value = MAKERS[locale][kind](fake, rng)
            parts += [rng.choice(FILLER[locale]), rng.choice(TEMPLATES[locale][kind]).format(value)]
            expected.append((kind, value))
        separator = "" if locale == "zh_CN" and rng.random() < 0.5 else " "
        texts.append(Labelled(separator.join(parts), tuple(expected)))
    return texts
