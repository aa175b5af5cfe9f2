"""The HTTP service: OpenAI's wire (`openai/`), the web app's pages, health, and who may come in.

Imports no torch: models arrive as `TextModel`s, made by whoever starts the server.
"""
