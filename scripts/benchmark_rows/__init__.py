"""The rows of scripts/benchmark.py, and what they are measured with."""
