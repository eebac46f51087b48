"""The study of the teachers' guidance in the small world: `make shapes-study`, docs/STUDY.md."""
