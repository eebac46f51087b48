"""The report: one HTML and one Markdown page with the measured numbers beside the paper's."""
