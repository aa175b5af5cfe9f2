"""Conversations of the web app: whose they are and what they are called (`threads`), the tree of what was said (`messages`), and
answers that are being written (`generations`)."""
