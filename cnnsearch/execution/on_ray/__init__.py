"""Runs trials in Ray's workers. The only package that imports Ray."""
