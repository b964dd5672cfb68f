"""Applications and controllers."""
