"""Moderation: which of OpenAI's categories of harmful content a text falls into, in English and Chinese.

A linear classifier over words, over what kinds of words stand near each other (`data/lexicon.txt`), and over what the words mean
(`data/vectors.safetensors`); trained by `scripts/train_moderation.py` on the labelled sentences in `data`. It needs NumPy only, and
a fraction of a millisecond a sentence.
"""
