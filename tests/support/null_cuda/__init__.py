"""A stand-in for the CUDA libraries, for machines without a GPU.

PyTorch's own CUDA build runs over libraries that keep the books and compute nothing: memory with a cap, streams, events, the
rules of stream capture, copies, waits, and kernels by name. Values on the "device" are garbage. What is real are crashes, waits,
launches, copies, capture violations, memory, and the lives of threads and processes.
"""
