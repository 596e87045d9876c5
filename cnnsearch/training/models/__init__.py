"""Architectures, which of their layers train, and where their pretrained weights come from."""
