"""What is told of runs: a page, a trace for other viewers, what differs between two of them."""
