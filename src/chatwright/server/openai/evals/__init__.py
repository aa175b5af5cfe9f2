"""`/v1/evals`: what answers are measured by, the times that they were, and what became of each item."""
