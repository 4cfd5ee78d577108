"""Studies: networks x methods x metrics, each in a file, run by one engine."""
