"""Decoding on the CPU by compiled kernels: weights kept 8- or 4-bit, a step of many sequences in one call.

library   the compiled code (the distribution chatwright-kernels), through ctypes
weights   a model's matrices, packed for it and kept on the disk
program   a configuration as a flat list of operations
runner    the engine's runner over all three
"""
