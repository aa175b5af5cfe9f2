"""Evals: `definitions` are what is measured, `runs` the times that it was, `work` takes runs forward."""
