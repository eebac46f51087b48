"""A study of the teachers' guidance scale in the small worlds: docs/STUDY.md, docs/STUDY_AVATARS.md."""
