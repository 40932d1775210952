"""The benchmark suite: ``python -m pytest benchmarks --benchmark-only``; see docs/benchmarks.md."""
