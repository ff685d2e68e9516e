"""The benchmarks: ``python -m tests.bench`` measures, and writes the results into docs/benchmarks.md."""
