"""A study of the teachers' guidance scale in the shapes world: `make shapes-study`, docs/STUDY.md."""
