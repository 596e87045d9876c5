"""Architectures, what of them trains, and where their pretrained weights come from."""
