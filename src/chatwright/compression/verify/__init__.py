"""Train equals serve: the same prompts through two of {our decoder, our engine, Transformers, llama.cpp, a server}, compared in
token ids, logits and greedy tokens, and what is different named.

`sides` says how each is asked, `compare` what is found, `files` what in the two models' files explains it.
"""
