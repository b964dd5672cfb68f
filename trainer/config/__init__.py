"""Settings: schema, loader, learning-rate schedule. Torch-free."""
