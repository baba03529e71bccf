"""Kernels in Triton, which comes with PyTorch for CUDA. calls.py says which tensors they are given.

calls.py alone may be imported where there is no Triton; the others are imported when a tensor is served.
"""
