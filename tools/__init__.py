"""What is run by hand: generators of the documentation, and a benchmark. They use the product and no test."""
