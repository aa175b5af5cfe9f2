"""`verify` finds what was planted and names its kind, calls rounding rounding, and finds nothing where nothing is."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import chatwright.compression.verify as package
from chatwright.compression.export_gguf import export_gguf
from chatwright.compression.gguf_parts import GGUFType
from chatwright.compression.source import Source
from chatwright.compression.verify.answers import Answering, compare_answers
from chatwright.compression.verify.compare import compare_sides
from chatwright.compression.verify.naming import parse, verify
from chatwright.compression.verify.ours import EngineSide, TorchSide
from chatwright.compression.verify.report import Report
from chatwright.compression.verify.side import Answered, Logits, Message, Precision, Token
from chatwright.compression.verify.texts import TEXTS
from chatwright.errors import EngineError, InvalidModelError, ModelNotFoundError, UsageError
from chatwright.i18n import catalogue
from chatwright.settings import Settings
from tests.compression.models import edit_json, make_folder
from tests.server.harness import start_server
from tests.server.tiny import TEMPLATE, make_model_folder

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("verify") / "model", "qwen3, tied, biases", num_hidden_layers=2)


@pytest.fixture
def changed(model: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """A copy of the model with a change."""

    def copy(change: Change) -> Path:
        shutil.copytree(model, tmp_path / "changed")
        change(tmp_path / "changed")
        return tmp_path / "changed"

    return copy


def compared(a: object, b: object, tmp_path: Path) -> Report:
    return verify(str(a), str(b), Settings(home=tmp_path), lambda name: (Path(name), None), n_greedy=6)


def kinds(report: Report, *, real: bool = True) -> set[str]:
    return {found.kind for found in report.findings if found.real is real}


def row(tensor: str, index: int, factor: float) -> Change:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights[tensor][index] *= factor
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def rope(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.pop("rope_parameters", None)
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 20_000.0}))


def template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("assistant\n", "assistant \n"))


def tokenizer(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][1:]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def in_half(dtype: torch.dtype) -> Change:
    def change(folder: Path) -> None:
        weights = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def test_a_model_is_the_same_as_itself(model: Path, tmp_path: Path) -> None:
    report = compared(model, model, tmp_path)
    assert report.findings == []
    assert report.figures is not None
    assert report.figures.max_abs == 0
    assert report.figures.top1 == 1
    assert [each.name for each in report.texts] == list(TEXTS)
    assert all(each.first is None for each in (*report.texts, *report.chats))
    assert all(each.same == each.n_tokens == 6 for each in report.greedy)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (template, "template", "of the conversation 'en', token"),
        (tokenizer, "tokenizer", "of the text"),
        (row("model.layers.1.mlp.up_proj.weight", 5, -3.0), "weights", r"layers.1.feed_forward.up.weight, row 5 of 96"),
        (row("model.embed_tokens.weight", 300, 0.5), "weights", r"embed.weight, row 300 of 384"),
        (row("model.layers.0.self_attn.q_norm.weight", 2, 0.5), "weights", "layers.0.attention.q_norm.weight"),
        (rope, "rope", "the rotary frequencies is 10000 and 20000"),
        (lambda folder: edit_json(folder / "config.json", rms_norm_eps=1e-3), "config", "norm_eps is 1e-06 and 0.001"),
    ],
    ids=["template", "tokenizer", "row of a matrix", "row of the embedding", "norm", "rope", "config"],
)
def test_a_planted_difference_is_found_and_named(
    change: Change, kind: str, words: str, model: Path, changed: Callable[[Change], Path], tmp_path: Path
) -> None:
    report = compared(model, changed(change), tmp_path)
    assert report.differs
    assert kind in kinds(report)
    assert any(words in str(found) for found in report.findings if found.kind == kind)
    if kind in ("template", "tokenizer"):
        assert kinds(report) == {kind}  # the weights are the same
    else:
        assert not kinds(report) & {"template", "tokenizer"}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_coarser_precision_differs_as_rounding_would(precision: str, model: Path, tmp_path: Path) -> None:
    report = compared(model, f"torch/{precision}:{model}", tmp_path)
    assert "rounding" in kinds(report, real=False)
    assert kinds(report) <= {"greedy"}
    assert any("as rounding would" in str(found) for found in report.findings)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_kept_in_half_differ_as_rounding_would(
    dtype: torch.dtype, model: Path, changed: Callable[[Change], Path], tmp_path: Path
) -> None:
    report = compared(model, changed(in_half(dtype)), tmp_path)
    name = {torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    assert any(f"(F32 and {name})" in str(found) for found in report.findings if found.kind == "rounding")
    assert not kinds(report) & {"weights", "logits", "config"}


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
def test_weights_that_a_file_keeps_in_few_bits_differ_as_rounding_would(
    kind: GGUFType, model: Path, tmp_path: Path
) -> None:
    export_gguf(Source.open(model), tmp_path / "small.gguf", kind)
    report = compared(model, tmp_path / "small.gguf", tmp_path)
    assert kinds(report) == set(), [str(found) for found in report.findings]
    assert "rounding" in kinds(report, real=False)
    again = compared(tmp_path / "small.gguf", tmp_path / "small.gguf", tmp_path)
    assert kinds(again) == kinds(again, real=False) == set()


def test_without_files_positions_and_a_row_of_the_head_are_told_from_the_logits(
    model: Path, changed: Callable[[Change], Path], tmp_path: Path
) -> None:
    a, b = TorchSide("a", model), TorchSide("b", changed(rope))
    assert "positions" in kinds(compare_sides(a, b, n_greedy=2))
    shutil.rmtree(tmp_path / "changed")
    untied = make_folder(tmp_path / "untied", "qwen3", num_hidden_layers=2)
    shutil.copytree(untied, tmp_path / "damaged")
    row("lm_head.weight", 77, 3.0)(tmp_path / "damaged")
    report = compare_sides(TorchSide("a", untied), TorchSide("b", tmp_path / "damaged"), n_greedy=2)
    assert any("one token, 77 " in str(found) for found in report.findings if found.kind == "weights")


def test_a_damaged_layer_is_more_than_rounding(model: Path, changed: Callable[[Change], Path]) -> None:
    a = TorchSide("a", model)
    b = TorchSide("b", changed(row("model.layers.0.mlp.down_proj.weight", slice(0, 40), 0.0)))  # type: ignore[arg-type]
    report = compare_sides(a, b, (a.source, None), n_greedy=2)
    assert "logits" in kinds(report)


def test_logits_that_are_no_numbers_are_a_difference(
    model: Path, changed: Callable[[Change], Path], tmp_path: Path
) -> None:
    report = compared(model, changed(row("model.norm.weight", 0, float("nan"))), tmp_path)
    assert "not finite" in kinds(report)


def test_greedy_tokens_part_in_a_tie_or_really(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = TorchSide("a", model), TorchSide("b", model)
    made = b.greedy

    def other(ids: list[int], n: int) -> list[int]:
        tokens = made(ids, n)
        logits = b.logits([*ids, *tokens[:3]])[-1]
        return [*tokens[:3], int(np.argsort(-logits)[1]), *tokens[4:]]

    monkeypatch.setattr(b, "greedy", other)
    # the second best, called an answer, is not what its logits say
    assert kinds(compare_sides(a, b, n_greedy=6, tie=0.0)) & {"cache", "greedy"}
    report = compare_sides(a, b, n_greedy=6, tie=1e6)
    assert kinds(report) == set()
    assert "tie" in kinds(report, real=False)
    assert all(each.same == 3 for each in report.greedy)


class Tipped(TorchSide):
    """Answers as the model does for three tokens, then by a row of its own, which its logits say too."""

    def __init__(self, label: str, path: Path, row: dict[int, float]) -> None:
        super().__init__(label, path)
        self.row = np.full(self.vocab_size, -9, np.float32)
        self.row[list(row)] = list(row.values())
        self.contexts: set[tuple[int, ...]] = set()

    def greedy(self, ids: Sequence[int], n: int) -> list[int]:
        tokens = super().greedy(ids, n)
        self.contexts.add((*ids, *tokens[:3]))
        return [*tokens[:3], int(self.row.argmax()), *tokens[4:]]

    def logits(self, ids: Sequence[int]) -> Logits:
        found = super().logits(ids).copy()
        if tuple(ids) in self.contexts:
            found[-1] = self.row
        return found


CLOSE = {7: 2.0, 8: 1.95, 9: 0.5, 10: 0.0, 11: -1.0}


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_a_tie_is_one_of_the_two_tokens_that_were_taken(model: Path, precision: Precision) -> None:
    """Where the reference's two best tokens were close, whatever the other side took was called a tie."""
    a, second, fifth = (Tipped(str(row), model, CLOSE | row) for row in ({}, {8: 2.1}, {11: 2.1}))
    second.precision = fifth.precision = precision
    report = compare_sides(a, second, n_greedy=6)
    assert kinds(report) == set()
    assert "tie" in kinds(report, real=False)
    report = compare_sides(a, fifth, n_greedy=6)
    assert kinds(report) == {"greedy"}
    assert [each.gap for each in report.greedy] == pytest.approx([3.0] * len(report.greedy))


class Told:
    """A server that says one token with its likeliest."""

    def __init__(self, label: str, top: dict[str, float]) -> None:
        self.label, self.top = label, top

    def complete(self, text: str, n: int) -> Answered:
        best = max(self.top, key=self.top.__getitem__)
        return Answered(4, (), (Token.told(best, self.top[best], self.top.items()),))

    def chat(self, messages: Sequence[Message], n: int) -> Answered:
        return self.complete("", n)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("taken", "gap", "kind", "real"),
    [("b", 0.05, "tie", False), ("d", 0.9, "greedy", False), ("e", 3.0, "greedy", True), ("x", 3.0, "greedy", True)],
)
def test_so_it_is_of_a_server(taken: str, gap: float, kind: str, real: bool) -> None:
    """`x` was not told: it is at least as far down as the last one that was."""
    told = {"a": -1.0, "b": -1.05, "c": -1.5, "d": -1.9, "e": -4.0}
    report = compare_answers(Told("a", told), Told("b", {taken: -0.9}), n_greedy=1)
    assert {(found.kind, found.real) for found in report.findings if found.kind in ("tie", "greedy")} == {(kind, real)}
    assert [each.gap for each in report.greedy] == pytest.approx([gap] * len(report.greedy))


def test_templates_that_differ_only_where_nobody_looked_are_mentioned(
    model: Path, changed: Callable[[Change], Path], tmp_path: Path
) -> None:
    other = changed(
        lambda folder: (folder / "chat_template.jinja").write_text(TEMPLATE + "{% if tools %}x{% endif %}") and None
    )
    report = compared(model, other, tmp_path)
    assert kinds(report) == set()
    assert kinds(report, real=False) == {"template"}


def test_other_vocabularies_are_refused(model: Path, tmp_path: Path) -> None:
    wider = make_folder(tmp_path / "wider", "qwen3, tied, biases", vocab_size=400)
    with pytest.raises(UsageError, match=r"different vocabularies \(384 and 400 tokens\)"):
        compared(model, wider, tmp_path)
    other = make_model_folder(tmp_path / "other")
    with pytest.raises(UsageError, match="are other texts"):
        compared(model, other, tmp_path)


def truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.parametrize(
    "damage", [truncated, lambda folder: edit_json(folder / "config.json", intermediate_size=80)], ids=["file", "shape"]
)
def test_a_folder_that_transformers_cannot_load_is_a_sentence(
    model: Path, changed: Callable[[Change], Path], damage: Change, tmp_path: Path
) -> None:
    with pytest.raises(InvalidModelError, match=r"Transformers cannot load .*/changed: ."):
        compared(model, f"hf:{changed(damage)}", tmp_path)


def test_transformers_and_our_engine_say_the_same(model: Path, tmp_path: Path) -> None:
    report = compared(model, f"hf:{model}", tmp_path)
    assert kinds(report) == set()
    assert report.figures is not None
    assert report.figures.max_abs < 1e-3
    report = compared(model, f"engine/fp32:{model}", tmp_path)
    assert kinds(report) == set()
    assert report.figures is not None
    assert report.figures.kl_max < 1e-6


@pytest.mark.skipif(
    find_spec("xllamacpp") is None and find_spec("llama_cpp") is None, reason="needs llama.cpp (the extra llama)"
)
@pytest.mark.parametrize(
    "case", ["gpt2", "llama, tied", "llama, llama3 rope", "llama, one key head, biases", "qwen2", "qwen3", "gemma3"]
)
def test_llama_cpp_says_the_same_of_what_was_exported(case: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "hf", case)
    assert export_gguf(Source.open(folder), tmp_path / "out.gguf").not_loaded is None
    report = compared(folder, f"llama:{tmp_path / 'out.gguf'}", tmp_path)
    assert kinds(report) == set(), [str(found) for found in report.findings]
    assert report.figures is not None
    assert report.figures.kl_mean < 1e-3
    assert all(each.first is None for each in report.texts)


@pytest.mark.skipif(
    find_spec("xllamacpp") is None and find_spec("llama_cpp") is None, reason="needs llama.cpp (the extra llama)"
)
@pytest.mark.parametrize(("case", "changes"), [("qwen3, tied, biases", {}), ("gemma3", {"attention_bias": True})])
def test_what_llama_cpp_does_not_load_is_said_when_it_is_written(
    case: str, changes: dict[str, bool], tmp_path: Path
) -> None:
    """When this fails llama.cpp has learned it: then neither the sentence nor this test is needed any more."""
    folder = make_folder(tmp_path / "hf", case, **changes)
    exported = export_gguf(Source.open(folder), tmp_path / "out.gguf", "F32")
    assert exported.not_loaded is not None
    assert "have no biases" in exported.not_loaded
    assert kinds(compared(folder, exported.path, tmp_path)) == set()
    with pytest.raises(EngineError, match=r"llama\.cpp cannot load"):
        compared(folder, f"llama:{exported.path}", tmp_path)


@pytest.mark.skipif(
    find_spec("xllamacpp") is None and find_spec("llama_cpp") is None, reason="needs llama.cpp (the extra llama)"
)
def test_where_eight_bit_activations_hide_the_weights_the_way_around_them_is_said(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "hf", "llama, tied")
    few, whole = tmp_path / "few.gguf", tmp_path / "whole.gguf"
    export_gguf(Source.open(folder), few, "Q4_1")
    export_gguf(Source.open(few), whole, "F32")

    def said(a: Path, b: Path) -> list[str]:
        report = verify(str(a), f"llama:{b}", Settings(home=tmp_path), lambda name: (Path(name), None), tie=0.0)
        assert not report.differs, [str(found) for found in report.findings]
        return [str(found) for found in report.findings if found.kind in ("greedy", "rounding")]

    assert any(f"chatwright export {few} --to gguf --type F32" in sentence for sentence in said(few, few))
    assert said(few, whole) == []


def test_a_server_shows_answers_only_and_they_agree(tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "tiny")
    server = start_server(folder, home=tmp_path, quantization="fp32")
    try:
        report = compared(folder, server.url, tmp_path)
        assert report.seen == "answers"
        assert kinds(report) == set(), [str(found) for found in report.findings]
        assert any("only answers are seen" in str(found) for found in report.findings)
        assert report.chats
        template(folder)
        assert kinds(compared(folder, f"{server.url}/v1#tiny", tmp_path)) == {"template"}
        row("lm_head.weight", slice(0, 384), 1.5)(folder)  # type: ignore[arg-type]
        assert "logits" in kinds(compared(folder, server.url, tmp_path))
    finally:
        server.stop()
    with pytest.raises(EngineError, match="does not answer"):
        compared(folder, server.url, tmp_path)


def test_texts_that_fill_a_small_context_are_cut_short_or_left_out(
    model: Path, changed: Callable[[Change], Path]
) -> None:
    """The engine stopped at an assertion: it was asked for more than its context holds."""
    lengths = sorted(len(TorchSide("a", model).encode(text)) for text in TEXTS.values())
    context = lengths[-2] + 3  # the longest has no room, the next one room for a part of an answer
    assert context <= lengths[-1]

    def small(folder: Path) -> None:
        edit_json(folder / "config.json", max_position_embeddings=context)

    folder = changed(small)
    settings = Settings(home=folder.parent, quantization="fp32")
    a, b = Answering(TorchSide("a", folder)), Answering(EngineSide("b", folder, settings))
    try:
        report = compare_answers(a, b, n_greedy=24, chats=False)
    finally:
        a.close()
        b.close()
    assert kinds(report) == set(), [str(found) for found in report.findings]
    assert any("Too long for the context" in str(found) for found in report.findings)
    assert len(report.texts) == sum(length < context for length in lengths)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smollm2:135m", ("torch", None, "smollm2:135m")),
        ("engine:smollm2:135m", ("engine", None, "smollm2:135m")),
        ("engine/int8:runs/a", ("engine", "int8", "runs/a")),
        ("torch/bf16:C:/models/a", ("torch", "bf16", "C:/models/a")),
        ("llama:a.gguf", ("llama", None, "a.gguf")),
        ("runs/a", ("torch", None, "runs/a")),
    ],
)
def test_how_sides_are_named(name: str, expected: tuple[str, str | None, str]) -> None:
    assert parse(name) == expected


def test_bad_names_are_refused_in_a_sentence(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of int8, int4"):
        parse("engine/int3:x")
    with pytest.raises(UsageError, match="missing behind the colon"):
        parse("hf:")
    with pytest.raises(ModelNotFoundError):
        compared(model, f"hf:{tmp_path}", tmp_path)
    with pytest.raises(UsageError, match="takes a GGUF file"):
        compared(model, f"llama:{model}", tmp_path)


def test_every_finding_exists_in_chinese() -> None:
    chinese = catalogue("zh")
    sentences = []
    for file in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "finding":
                assert isinstance(node.args[2], ast.Constant)
                sentences.append(node.args[2].value)
    assert len(sentences) > 15
    assert [sentence for sentence in sentences if sentence not in chinese] == []
