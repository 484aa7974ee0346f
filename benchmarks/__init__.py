"""Time and memory: `python -m benchmarks NAME`, a module each, what they share in harness."""
