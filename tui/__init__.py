"""The dashboard: shows a run and steers it. Knows nothing of tensors; importing it imports no torch."""
