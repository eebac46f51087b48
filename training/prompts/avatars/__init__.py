"""A world of drawn people, monsters, plants and planets: exact captions, endless data, faces that people know."""
