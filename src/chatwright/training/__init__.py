"""One training loop, and what it trains: a language model from nothing, a chat model, an adapter, a head on labelled texts."""
