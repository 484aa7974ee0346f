"""What benchmarks share: processes per library, parity, clocks and memory, tables."""
