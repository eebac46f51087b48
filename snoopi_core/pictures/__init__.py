"""Pages drawn with Pillow: a contact sheet and a chart."""
