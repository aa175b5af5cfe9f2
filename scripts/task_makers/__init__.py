"""Makers of the evaluation tasks that ship: each takes a language and a random generator and gives the items of a task."""
