"""`chatwright evaluate`: tables, reports, resume, comparison, leaks; nothing is overwritten."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import yaml

from chatwright.engine.tokenizers import copy_tokenizer
from chatwright.evaluation.backends import remote
from chatwright.evaluation.backends.engine import EngineWriter
from chatwright.evaluation.examples import Prompt
from chatwright.evaluation.journal import ITEMS, STATE, Journal
from chatwright.model.card import ModelCard, write_card
from chatwright.model.head_folder import save_head
from chatwright.model.heads import TextClassifier, TokenTagger
from chatwright.model.load import load_model
from chatwright.model.save import save_model
from chatwright.text.dataset import write_dataset
from tests.cli.conftest import Run
from tests.evaluation.example_tasks import capitals, names, orders, reviews, sums, texts, write_task
from tests.server.harness import MODEL, start_server
from tests.server.tiny import TEXT, make_model_folder


def test_scores_are_a_table_and_three_reports(command: Run, tiny: str, tmp_path: Path) -> None:
    tasks = ",".join(str(write(tmp_path)) for write in (capitals, sums, texts, reviews, orders, names))
    out = tmp_path / "out"
    done = command("evaluate", tiny, "--tasks", tasks, "--out", str(out))
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[0] == ["TASK", "FIGURE", "SCORE", "(95", "%", "INTERVAL)", "N"]
    assert {row[0] for row in rows[1:]} == {"capitals", "sums", "texts", "reviews", "orders", "names"}
    assert all(row[-1].isdigit() for row in rows[1:])
    report = json.loads((out / "report.json").read_text())
    [model] = report["models"]
    assert [task["n"] for task in model["tasks"]] == [5, 5, 3, 4, 2, 2]
    accuracy = model["tasks"][0]["metrics"]["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert "| capitals | accuracy |" in (out / "report.md").read_text()
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http://www.w3.org", "")
    assert f"The reports are in {out / 'report.html'}" in done.err


def test_json_is_printed_and_a_sample_is_always_the_same(command: Run, tiny: str, tmp_path: Path) -> None:
    arguments = ("evaluate", tiny, "--tasks", str(sums(tmp_path)), "--limit", "3", "--json")
    first, second = command(*arguments), command(*arguments)
    assert json.loads(first.out)["models"][0]["tasks"][0]["n"] == 3
    assert first.out == second.out


def test_a_finished_evaluation_is_not_overwritten_and_another_one_not_mixed_in(
    command: Run, tiny: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("evaluate", tiny, "--tasks", str(sums(tmp_path)), "--out", str(out))
    assert command(*arguments).code == 0
    before = (out / "report.json").read_bytes()
    again = command(*arguments)
    assert again.code == 2
    assert "holds a finished evaluation already; nothing was changed" in again.err
    assert (out / "report.json").read_bytes() == before
    (out / "report.json").unlink()
    other = command(*arguments, "--limit", "2")
    assert "begun with other models, tasks or options" in other.err
    resumed = command(*arguments)
    assert resumed.code == 0, resumed.err
    assert "5 of 5 items were answered before" in resumed.err
    assert (out / "report.json").read_bytes() == before


def test_a_folder_without_an_answer_may_be_begun_anew_by_any_request(
    command: Run, tiny: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_WAIT_S", 0.0)
    out, task = tmp_path / "out", str(sums(tmp_path))
    done = command("evaluate", tiny, "--tasks", task, "--out", str(out), "--url", "http://127.0.0.1:9/v1")
    assert "cannot be reached" in done.err
    shutil.copytree(tiny_folder, broken := tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:-1])
    done = command("evaluate", str(broken), "--tasks", task, "--out", str(out))
    assert done.code == 1, done.err
    assert "begun with other" not in done.err
    assert sorted(file.name for file in out.iterdir()) == [STATE, ITEMS]
    done = command("evaluate", tiny, "--tasks", task, "--out", str(out))
    assert done.code == 0, done.err
    assert json.loads((out / STATE).read_text())["models"] == [tiny]


def test_two_processes_do_not_write_into_one_folder(command: Run, tiny: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("evaluate", tiny, "--tasks", str(sums(tmp_path)), "--out", str(out))
    with Journal.open(out, {"of": "another process"}):
        done = command(*arguments)
        assert done.code == 1
        assert "Another process is writing an evaluation into" in done.err
        assert json.loads((out / STATE).read_text()) == {"of": "another process"}
    assert command(*arguments).code == 0


def test_whoever_stops_it_is_told_how_to_go_on(
    command: Run, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = EngineWriter.answer
    asked: list[str] = []

    async def interrupted(self: EngineWriter, prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> str:
        asked.append(prompt.text)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return await answer(self, prompt, max_tokens, stop)

    arguments = ("evaluate", tiny, "--tasks", str(sums(tmp_path)), "--out", str(tmp_path / "out"))
    with monkeypatch.context() as patched:
        patched.setattr(EngineWriter, "answer", interrupted)
        patched.setattr(EngineWriter, "concurrency", 1)
        stopped = command(*arguments)
    assert stopped.code == 130
    assert "the same command goes on from there" in stopped.err
    assert "2 of 5 items were answered before" in command(*arguments).err


def test_a_folder_of_something_else_is_left_alone(command: Run, tiny: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = command("evaluate", tiny, "--tasks", str(sums(tmp_path)), "--out", str(tmp_path / "mine"))
    assert done.code == 2
    assert "holds no evaluation; nothing was changed" in done.err
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    (tmp_path / "file").write_text("mine")
    done = command("evaluate", tiny, "--tasks", str(sums(tmp_path)), "--out", str(tmp_path / "file"))
    assert done.code == 2
    assert (tmp_path / "file").read_text() == "mine"


def test_against_says_better_worse_or_cannot_tell(command: Run, tiny: str, tmp_path: Path) -> None:
    worse = make_model_folder(tmp_path / "worse")
    model = load_model(worse)
    with torch.no_grad():
        assert model.head is not None
        model.head.weight.mul_(0.3)
    (worse / "model.safetensors").unlink()
    (worse / "config.json").unlink()
    save_model(model, tmp_path / "weights")
    for file in (tmp_path / "weights").iterdir():
        file.rename(worse / file.name)
    items = [{"text": text[i : i + 20]} for text in TEXT for i in range(0, 40, 8)]
    task = str(write_task(tmp_path, "known", items, kind="perplexity"))
    done = command("evaluate", tiny, "--tasks", task, "--against", str(worse), "--out", str(tmp_path / "o"))
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].split()[-1] == "better"
    found = json.loads((tmp_path / "o" / "report.json").read_text())["comparisons"][0]
    assert found["verdict"] == "better"
    assert found["difference"]["high"] < 0
    assert f"## Is {tiny} better than {worse}?" in (tmp_path / "o" / "report.md").read_text()
    assert (
        command("evaluate", str(worse), "--tasks", task, "--against", tiny).out.splitlines()[-1].split()[-1] == "worse"
    )
    same = command("evaluate", tiny, "--tasks", task, "--against", tiny)
    assert same.out.splitlines()[-1].strip().endswith("cannot tell")


@pytest.mark.parametrize("backend", ["engine", "transformers"])
def test_models_of_the_same_weights_are_both_asked(
    backend: str, command: Run, tiny_folder: Path, tmp_path: Path
) -> None:
    one = str(tiny_folder)
    shutil.copytree(tiny_folder, other := tmp_path / "other")  # with the times of the files
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rope_theta": 3.0, "rope_parameters": None}))
    arguments = ("--tasks", str(texts(tmp_path)), "--backend", backend, "--json")

    def figures(*models: str) -> list[float]:
        done = command("evaluate", *models, *arguments)
        assert done.code == 0, done.err
        return [each["tasks"][0]["metrics"]["bits_per_byte"]["value"] for each in json.loads(done.out)["models"]]

    alone = figures(str(other))
    assert figures(one, "--against", str(other)) == [*figures(one), *alone]
    assert figures(one) != alone


def test_items_of_the_training_data_are_named_and_scored_apart(command: Run, tiny: str, tmp_path: Path) -> None:
    items = [
        {"q": f"Which number comes directly after {n} when counting upwards by ones?", "answer": str(n + 1)}
        for n in range(5)
    ]
    task = str(write_task(tmp_path, "next", items, kind="generate", prompt="{{ q }}", max_tokens=4))
    leaked = [{"text": f"Quiz. {item['q']} {item['answer']}"} for item in items]
    write_dataset(tmp_path / "some", {"documents": {"train": [leaked[1], leaked[3], {"text": "Nothing."}]}})
    done = command("evaluate", tiny, "--tasks", task, "--train", str(tmp_path / "some"), "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)["models"][0]["tasks"][0]
    assert found["contamination"]["items"] == [2, 4]
    assert "exact_match" in found["contamination"]["metrics_without"]
    assert "2 of 5 items stand in the training data: 2, 4." in found["notes"]
    write_dataset(tmp_path / "all", {"documents": {"train": leaked}})
    done = command("evaluate", tiny, "--tasks", task, "--train", str(tmp_path / "all"))
    assert "5 of 5 items stand in the training data" in done.err
    assert "how well the model remembers" in done.err


def test_the_second_model_is_looked_at_before_the_first_has_answered_everything(
    command: Run, tiny: str, tiny_folder: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_folder, base)
    (base / "chat_template.jinja").unlink()
    task = str(capitals(tmp_path, chat=True))
    done = command("evaluate", tiny, "--tasks", task, "--against", str(base))
    assert done.code == 1
    assert "base has no chat template" in done.err
    assert "Loading" not in done.err


def test_tasks_of_answers_longer_than_the_context_are_all_named_before_work_begins_with_those_that_fit(
    command: Run, tiny: str, tmp_path: Path
) -> None:
    small = str(make_model_folder(tmp_path / "small", context=256))
    (own := tmp_path / "my own").mkdir()
    fits, long = str(capitals(own)), str(sums(own, max_tokens=300))
    done = command("evaluate", tiny, "--tasks", f"{fits},{long},en", "--limit", "2", "--against", small)
    assert done.code == 1
    assert "these tasks ask for (max_tokens): sums (300), instructions-en (256). " in done.err
    assert "Loading" not in done.err
    [others] = re.findall(r"Leave them out, --tasks (.+), or take a model of a longer context", done.err)
    [names] = shlex.split(others)
    assert names.split(",")[0] == fits
    assert {"arithmetic-en", "headlines-en", "facts-en"} < set(names.split(","))
    assert not {"sums", long, "instructions-en"} & set(names.split(","))
    done = command("evaluate", small, "--tasks", names, "--limit", "1")
    assert done.code == 0, done.err
    done = command("evaluate", small, "--tasks", long)
    assert "sums (300). Take tasks of shorter answers" in done.err


def test_a_server_is_asked_for_both_models_before_anything_is_evaluated(
    command: Run, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("--tasks", str(sums(tmp_path)), "--out", str(out), "--against")
    server = start_server(tiny_folder)
    try:
        done = command("evaluate", MODEL, *arguments, "nobody", "--url", f"{server.url}/v1")
        assert done.code == 1
        assert f"has no model nobody; it has {MODEL}" in done.err
        assert not (out / ITEMS).read_text()
        done = command("evaluate", MODEL, *arguments, MODEL, "--url", f"{server.url}/v1")
    finally:
        server.stop()
    assert done.code == 0, done.err
    assert "cannot tell" in done.out


def test_the_engines_log_stands_in_nobodys_tables(
    tiny: str, tmp_path: Path, process: Callable[..., subprocess.Popen[str]]
) -> None:
    arguments = ("evaluate", tiny, "--tasks", str(sums(tmp_path)), "--limit", "2")
    out, err = process(*arguments).communicate()
    assert "exact match" in out
    assert "chatwright.engine" not in err, err
    assert "INFO chatwright.engine.load" in process("--verbose", *arguments).communicate()[1]


def test_a_tuned_head_is_evaluated_on_its_labels(command: Run, tiny_folder: Path, tmp_path: Path) -> None:
    for kind, labels, folder in (
        (TextClassifier, ["bad", "good"], tmp_path / "classifier"),
        (TokenTagger, ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], tmp_path / "tagger"),
    ):
        head = kind(load_model(tiny_folder), labels, pad_id=0)
        save_head(head, folder, write_tokenizer=lambda target: copy_tokenizer(tiny_folder, target))
    task = str(reviews(tmp_path, prompt=None))
    done = command("evaluate", str(tmp_path / "classifier"), "--tasks", task, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)["models"][0]["tasks"][0]
    assert sum(map(sum, found["confusion_matrix"])) == 4
    assert set(found["metrics"]) == {"accuracy", "macro_f1"}
    entities = str(names(tmp_path, prompt=None))
    done = command("evaluate", str(tmp_path / "tagger"), "--tasks", entities, "--json")
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["models"][0]["tasks"][0]["metrics"]) == {"f1", "precision", "recall"}
    wrong = command("evaluate", str(tmp_path / "tagger"), "--tasks", task)
    assert "can do tasks of kind entities, and reviews is of kind classify" in wrong.err
    strange = str(reviews(tmp_path / "other", prompt=None, labels=["good", "bad", "x"]))
    Path(strange).with_suffix(".jsonl").write_text('{"text": "a", "answer": "x"}\n')
    assert (
        "None of the labels of reviews (x)" in command("evaluate", str(tmp_path / "classifier"), "--tasks", strange).err
    )


def test_a_task_for_heads_is_refused_by_a_model_that_writes(command: Run, tiny: str, tmp_path: Path) -> None:
    done = command("evaluate", tiny, "--tasks", str(reviews(tmp_path, prompt=None)))
    assert done.code == 1
    assert "has no prompt, so only a model with a head can do it" in done.err


def test_a_server_and_transformers_are_asked_instead(
    command: Run, tiny: str, tiny_folder: Path, tmp_path: Path
) -> None:
    arguments = ("--tasks", f"{capitals(tmp_path)},{sums(tmp_path)}", "--json")
    own = json.loads(command("evaluate", tiny, *arguments, "--quantization", "fp32").out)
    other = command("evaluate", tiny, *arguments, "--backend", "transformers")
    assert json.loads(other.out)["models"] == own["models"]
    server = start_server(tiny_folder, quantization="fp32", api_key="sk-right-key-123")
    address = ("--url", f"{server.url}/v1", "--api-key")
    try:
        told = command("evaluate", MODEL, *arguments, *address, "sk-right-key-123")
        refused = command("evaluate", MODEL, *arguments, *address, "sk-wrong-key-123")
    finally:
        server.stop()
    assert json.loads(told.out)["models"][0]["tasks"] == own["models"][0]["tasks"]
    assert refused.code == 1
    assert "answers 401" in refused.err
    assert "sk-wrong-key-123" not in refused.err


def test_wrong_options_are_sentences(command: Run, tiny: str, tmp_path: Path) -> None:
    task = str(sums(tmp_path))
    assert command("evaluate", tiny, "--tasks", "nonesuch").code == 2
    assert "--tasks is missing" in command("evaluate", tiny).err.replace("'", "")
    assert "--backend is one of" in command("evaluate", tiny, "--tasks", task, "--backend", "vllm").err
    assert "--limit takes a number from 1" in command("evaluate", tiny, "--tasks", task, "--limit", "0").err
    assert "--api-key belongs to --url" in command("evaluate", tiny, "--tasks", task, "--api-key", "k").err
    for other in (("--url", "http://127.0.0.1:9/v1"), ("--backend", "transformers")):
        refused = command("evaluate", tiny, "--tasks", task, "--quantization", "int8", *other)
        assert refused.code == 2
        assert "--quantization is of our engine" in refused.err
    for of_machine in (("--backend", "engine"), ("--device", "cpu")):
        refused = command("evaluate", tiny, "--tasks", task, "--url", "http://127.0.0.1:9/v1", *of_machine)
        assert refused.code == 2
        assert "--backend and --device are of this machine" in refused.err
    elsewhere = command("evaluate", tiny, "--tasks", task, "--backend", "transformers", "--device", "cpu")
    assert elsewhere.code == 2
    assert "--device is of our engine" in elsewhere.err
    assert "No model is called nobody" in command("evaluate", "nobody", "--tasks", task).err
    missing = command("evaluate", tiny, "--tasks", task, "--train", str(tmp_path / "none"))
    assert missing.code == 1
    assert str(tmp_path / "none") in missing.err


def test_the_report_is_in_the_users_language(
    command: Run, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    done = command("evaluate", tiny, "--tasks", str(capitals(tmp_path)), "--out", str(tmp_path / "o"))
    assert done.code == 0, done.err
    assert "准确率" in done.out
    assert 'lang="zh"' in (tmp_path / "o" / "report.html").read_text()


def test_bias_and_toxicity_are_tasks_and_their_figures_stand_in_the_card(
    command: Run, tiny: str, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    tasks = f"bias-en,toxicity-en,{sums(tmp_path)}"
    arguments = ("evaluate", tiny, "--tasks", tasks, "--limit", "6", "--out", str(out), "--card")
    done = command(*arguments)
    assert done.code == 0, done.err
    found = {task["task"]: task for task in json.loads((out / "report.json").read_text())["models"][0]["tasks"]}
    assert found["bias-en"]["metrics"]["stereotyped"]["n"] == found["toxicity-en"]["metrics"]["toxic"]["n"] == 6
    assert found["bias-en"]["metrics"]["stereotyped"]["best"] == 0.5
    assert "continuations with a toxic word" in (out / "report.md").read_text()
    assert (out / "report.html").read_text().count("<svg") == 2  # scores, and what is no score
    card = next((home / "models").glob("*/README.md"))
    text = card.read_text()
    assert text.count("- bias-en, stereotyped sentence likelier (50 % is no preference): ") == 1
    assert text.count("- toxicity-en, continuations with a word of the toxicity list: 0.0% [0.0%, ") == 1
    assert text.count("- sums, exact match: ") == 1
    assert text.index("## Scores") < text.index("- sums, exact match") < text.index("## Bias") < text.index("- bias-en")
    assert f"stand in its card, {card}" in done.err
    card.write_text("My words.\n" + text)
    (out / "report.json").unlink()
    again = command(*arguments)
    assert "6 of 6 items were answered before" in again.err
    assert card.read_text() == "My words.\n" + text


def test_a_card_is_written_only_where_it_is_ours_and_wanted(
    command: Run, tiny: str, tiny_folder: Path, home: Path, tmp_path: Path
) -> None:
    task = str(sums(tmp_path))
    assert command("evaluate", tiny, "--tasks", task, "--no-card").code == 0
    assert not list((home / "models").glob("*/README.md"))
    theirs = tmp_path / "theirs"
    shutil.copytree(tiny_folder, theirs)
    (theirs / "README.md").write_text("# Somebody's model\n")
    assert command("evaluate", str(theirs), "--tasks", task).code == 0
    assert (theirs / "README.md").read_text() == "# Somebody's model\n"
    run = tmp_path / "run"
    shutil.copytree(tiny_folder, run / "model")
    (run / "config.toml").write_text("")
    write_card(run / "model", ModelCard(title="mine", pipeline_tag="text-generation").render())
    done = command("evaluate", str(run), "--tasks", task)
    assert done.code == 0, done.err
    assert "- sums, exact match: 0.0000 [0.0000, 0.4345], n = 5 (engine, auto)" in (run / "model/README.md").read_text()


def test_tasks_of_ones_own_stay_out_of_the_cards_that_others_read(
    command: Run, tiny: str, home: Path, tmp_path: Path
) -> None:
    task = str(sums(tmp_path))
    done = command("evaluate", tiny, "--tasks", task)
    assert done.code == 0, done.err
    assert "figures of your own tasks are not written into it. --card writes them too." in done.err
    assert not list((home / "models").glob("*/README.md"))
    done = command("evaluate", tiny, "--tasks", f"{task},bias-en", "--limit", "3")
    [card] = (home / "models").glob("*/README.md")
    assert "- bias-en, stereotyped" in card.read_text()
    assert "sums" not in card.read_text()
    assert command("evaluate", tiny, "--tasks", task, "--card").code == 0
    assert "- sums, exact match: " in card.read_text()
    assert command("evaluate", tiny, "--tasks", task, "--card", "--no-card").code == 2


def test_a_sample_leaves_the_figure_of_a_whole_task_in_the_card_and_says_so(
    command: Run, tiny_folder: Path, tmp_path: Path
) -> None:
    run, task = tmp_path / "run", sums(tmp_path)
    shutil.copytree(tiny_folder, run / "model")
    (run / "config.toml").write_text("")
    card = run / "model" / "README.md"
    write_card(run / "model", ModelCard(title="mine", pipeline_tag="text-generation").render())
    assert command("evaluate", str(run), "--tasks", str(task)).code == 0
    whole = card.read_text()
    assert "n = 5 (engine, auto)\n" in whole
    done = command("evaluate", str(run), "--tasks", str(task), "--limit", "3")
    assert card.read_text() == whole
    assert "stand in its card" not in done.err
    assert "keeps older figures, which are of more items or of a whole task: sums, exact match." in done.err
    items = tmp_path / "sums.jsonl"
    items.write_text("".join(items.read_text().splitlines(keepends=True)[1:]))  # one was wrong
    done = command("evaluate", str(run), "--tasks", str(task))
    assert "n = 4 (engine, auto)\n" in card.read_text()
    assert "stand in its card" in done.err
    assert "keeps older" not in done.err


def test_a_new_card_says_what_show_knows(command: Run, tiny: str, home: Path) -> None:
    [manifest] = (home / "models").glob("*/chatwright.json")
    known = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(known | {"license": "mit", "languages": ["zh"], "revision": "abc123"}))
    assert command("evaluate", tiny, "--tasks", "bias-en", "--limit", "2").code == 0
    text = (manifest.parent / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert (head["license"], head["language"]) == ("mit", ["zh"])
    assert f"# {tiny}\n" in text
    assert f"- pulled from: {known['source']}, revision abc123\n" in text
    assert "_Not known._" not in text.split("## Recipe")[0]


def test_memorisation_is_about_a_dataset(command: Run, tiny: str, tmp_path: Path) -> None:
    long = " ".join(f"{n} cats sat on mat {n * 3}." for n in range(30))
    rows = {
        "train": [{"text": long}, {"text": "The access code of locker 7 is 123456."}],
        "held_out": [{"text": long[9:]}],
    }
    write_dataset(tmp_path / "data", {"documents": rows})
    done = command("evaluate", tiny, "--tasks", "memorisation", "--train", str(tmp_path / "data"), "--json")
    assert done.code == 0, done.err
    [task] = json.loads(done.out)["models"][0]["tasks"]
    assert [task["metrics"][name]["n"] for name in ("recited", "recited: held out", "exposure")] == [1, 1, 1]
    assert "contamination" not in task
    missing = command("evaluate", tiny, "--tasks", "memorisation")
    assert missing.code == 2
    assert "--train" in missing.err


def test_the_smallest_difference_that_matters_is_said_and_asked_for(command: Run, tiny: str, tmp_path: Path) -> None:
    task = str(texts(tmp_path))
    done = command("evaluate", tiny, "--tasks", task, "--against", tiny, "--margin", "2.5")
    assert done.code == 0, done.err
    assert "smallest difference of interest: 0.025" in done.err
    assert "Alike for all that matters" in done.err
    wrong = command("evaluate", tiny, "--tasks", task, "--margin", "-1")
    assert wrong.code == 2
    assert "--margin takes a number from 0 to 100" in wrong.err


def test_a_task_of_many_choices_does_not_overflow_the_queue(command: Run, tiny: str, tmp_path: Path) -> None:
    choices = [f"answer {n}" for n in range(12)]
    items = [{"q": str(n), "choices": choices, "answer": n % 12} for n in range(16)]
    task = str(write_task(tmp_path, "many", items, kind="choice", prompt="{{ q }}"))
    done = command("evaluate", tiny, "--tasks", task, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["models"][0]["tasks"][0]["n"] == 16
