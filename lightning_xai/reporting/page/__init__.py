"""One page of HTML that answers what finished runs found, and the same as JSON."""
