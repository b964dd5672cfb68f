"""Steps and runs on the stand-in for the CUDA libraries (`tests/support/null_cuda`), where that can be built."""
