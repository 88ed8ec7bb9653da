"""Timings of this repository beside a Model Zoo-style configuration: ``python -m benchmarks VERB``."""
