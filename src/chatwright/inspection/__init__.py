"""Looking inside a model: what it expected at each token, what it attended to, what its layers and its embeddings hold.

`subject` loads a model to look at; `tokens`, `attention`, `lens`, `attribution` and `embeddings` each answer one question with
plain dataclasses; `explain` asks them all and `page` makes one HTML file of the answers. Models know nothing of it: whatever is
seen is seen through hooks and `Attend`. Import by name; all but `page` need torch.
"""
