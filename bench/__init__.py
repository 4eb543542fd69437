"""Benchmarks: programs that measure, never tests that time. `python -m bench link`; see bench/README.md."""
