"""Clusters of several Ray nodes on one machine, each with its own address, processes and files."""
