"""What programs leave on /v1 to come back to: responses, the conversations they lead, and chat completions that were to be kept.

All of it belongs to a user, or to the machine's operator; to others none of it exists.
"""
