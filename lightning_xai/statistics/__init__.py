"""What scores say: paired tests, intervals, and whether orders agree."""
