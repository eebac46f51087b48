"""Measures negative prompts on a student of the shapes world, with NASA and other methods: docs/RESULTS.md."""
