"""The store: users and what belongs to them, in SQLite or PostgreSQL. Every query takes an Actor; imports no torch.

`opening` opens it, `database` gives transactions, `policy` decides, `migrate` and `backup` look after the whole.
"""
