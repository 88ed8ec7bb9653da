"""Time and memory of this repository, compared with a Model Zoo-style configuration: ``python -m benchmarks VERB``."""
