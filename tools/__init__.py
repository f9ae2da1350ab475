"""Developer tools: documentation generators, pinned downloads and a benchmark. They import the product, never tests."""
