"""Images: where they come from, how they are kept, ordered and augmented."""
