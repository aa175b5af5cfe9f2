"""Looking inside a model: what it expected at each token, where it looked, what its layers and its embeddings hold.

`subject` loads a model to look at; `tokens`, `recording` (attention and the residual stream), `lens`, `attribution`, `embeddings`
each answer one question with plain dataclasses; `explain` asks them all and `page` makes one HTML file of the answers. Models know
nothing of it: whatever is seen is seen through hooks and `Attend`. All of it needs torch; import by name. Bias, toxicity and
memorisation are measured in `evaluation`, which runs them as tasks and may not import from here.
"""
