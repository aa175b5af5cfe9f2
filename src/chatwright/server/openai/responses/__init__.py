"""`/v1/responses` and `/v1/conversations`: chat whose state the server keeps, told in items and numbered events.

What answers is the job of `/v1/chat/completions`; here are items instead of messages (`items`), the object (`wire`), its events
(`story`), and what writes a response whether anybody listens or not (`running`).
"""
