"""How good a model is: bits per byte, answers compared with references, and the statistics to compare two models by."""
