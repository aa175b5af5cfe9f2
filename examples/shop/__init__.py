"""The customer service of Tern & Thistle, a shop that does not exist: conversations made by rule from a table of facts.

`python -m examples.shop FOLDER` writes them. Nothing here was said by a person: questions were written for this project, a
wording is filled with a product's name, and the answer follows from `facts.toml`, so that a model that has learned the facts can
be told from one that has learned the tone. The exam asks for the same facts in wordings that training never shows.
"""
