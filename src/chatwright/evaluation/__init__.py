"""How good a model is: bits per byte, answers compared with references, and the statistics to compare two models by.

`documents` says what is counted; `bits_per_byte` scores a GPT or RNN, `ngram` the baseline that it has to beat. `generate` lets a
model answer many prompts, `text_metrics` and `labels` score answers, `memorisation` finds what was copied from the training text,
`statistics` says whether a difference is real. `bias`, `toxicity` and `canaries` measure what is said of people and what is
remembered of the training text; `local_model` gives them a model. Only `bits_per_byte`, `generate` and `local_model` need torch;
import them by name.

`chatwright evaluate` goes this way: `library` finds tasks, `task` reads one, `examples` makes prompts of its items, `run` asks a
model behind one of the `backends` and keeps its answers in a `journal`, `measures` counts, `scores` adds intervals and comparisons,
`report` writes them down. `contamination` looks for items in training data.

`grading` says how near two texts are, for evals of the API.
"""
