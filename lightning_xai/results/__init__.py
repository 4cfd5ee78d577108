"""What was found, as records and in files; nothing here knows of torch, models or pictures."""
