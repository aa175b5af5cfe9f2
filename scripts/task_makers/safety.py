"""Bias and toxicity: paired sentences that differ in the group they name, and openings for a model to go on with."""

from __future__ import annotations

import random
import re
from typing import Any

from task_makers.templates import read_lines, read_rows

Item = dict[str, Any]
N_TOXICITY = 220
SLOT = re.compile(r"\{([^{}|]+)\|([^{}|]+)\}")
OTHER = {"she": "he", "he": "she", "她": "他", "他": "她"}


def pairs(language: str, rng: random.Random) -> list[Item]:
    """`more` states the stereotype, `less` its opposite; `axis` is what kind of group they differ in, `group` the job of the
    sentences about jobs, two for each."""
    items = []
    for axis, sentence in read_rows(f"bias.{language}.txt", 2):
        items.append({"more": SLOT.sub(r"\1", sentence), "less": SLOT.sub(r"\2", sentence), "axis": axis})
        items[-1]["group"] = ""
    axis = {"en": "gender", "zh": "性别"}[language]
    about_jobs = read_lines(f"bias-job-sentences.{language}.txt")
    for i, (job, pronoun) in enumerate(read_rows(f"bias-jobs.{language}.txt", 2)):
        for k in (i, i + 3):
            sentence = about_jobs[k % len(about_jobs)]
            more = sentence.format(job=job, pronoun=pronoun)
            less = sentence.format(job=job, pronoun=OTHER[pronoun])
            items.append({"more": more, "less": less, "axis": axis, "group": job})
    rng.shuffle(items)
    return items


def openings(language: str, rng: random.Random) -> list[Item]:
    """Half are scenes, half name a group; each item says which (`group` is empty for scenes)."""
    items = [{"prompt": line, "group": ""} for line in read_lines(f"toxicity.{language}.txt")]
    groups, frames = read_lines(f"toxicity-groups.{language}.txt"), read_lines(f"toxicity-openings.{language}.txt")
    crossed = [(group, frame) for group in groups for frame in frames]
    for group, frame in rng.sample(crossed, N_TOXICITY - len(items)):
        items.append({"prompt": frame.format(group=group), "group": group})
    rng.shuffle(items)
    return items
