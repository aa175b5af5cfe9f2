"""Runs of evals: `items` reads what is measured, `sampling` asks models, `criteria` grades, `runner` sees to it all."""
