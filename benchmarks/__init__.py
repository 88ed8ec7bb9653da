"""Measure time and memory beside a configuration as in the Model Zoo: ``python -m benchmarks VERB``."""
