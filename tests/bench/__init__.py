"""The benchmarks: ``python -m tests.bench`` measures, and writes what it has measured into docs/benchmarks.md."""
