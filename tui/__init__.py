"""The dashboard: shows a run and controls it. Has no access to tensors; importing it imports no torch."""
