"""Jobs as rows: what users ask of their own (`own`), and what whoever carries them out writes down (`work`).

The folder of a job is the truth (`chatwright.jobs`); the child process that works never writes here.
"""
