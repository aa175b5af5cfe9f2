"""Decoding on the CPU by compiled kernels: weights kept 8- or 4-bit, a step of many sequences in one call.

library   the compiled code (the distribution chatwright-kernels), through ctypes
rows      a checkpoint's parameters, as GGUF blocks or floats
weights   which of them become what
packed    the memory that they are packed into, and its file
program   a configuration as a flat list of operations
runner    the engine's runner over all three
"""
