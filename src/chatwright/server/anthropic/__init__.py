"""Anthropic's wire for clients that speak it: another form of the same conversations, answered by `openai.chat`."""
