"""One small file for each break of the stack below, which names the break that it mends."""
