"""What a negative prompt does to a student of the small world, by NASA and by other means: docs/RESULTS.md."""
