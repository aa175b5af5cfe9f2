"""Where answers come from: our engine in this process, any OpenAI-compatible server, Transformers, or a model with a head.

All speak the protocols of `backends.protocol`, so that a task is asked in the same words wherever it runs; the same model
gives the same scores through each of the first three.
"""
