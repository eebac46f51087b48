"""Makes images with one student or teacher, by any number of methods."""
