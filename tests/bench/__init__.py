"""What things cost: commands that measure, and docs/benchmarks.md has their results."""
