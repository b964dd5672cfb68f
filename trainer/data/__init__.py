"""Images: sources, storage, order and augmentation."""
