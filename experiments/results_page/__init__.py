"""The pages of what was measured in the small world: docs/RESULTS.md and docs/RESULTS.html."""
