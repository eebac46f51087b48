"""Measures negative prompts on a student of a small world, with NASA and other methods: docs/RESULTS.md."""
