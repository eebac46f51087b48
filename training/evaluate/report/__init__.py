"""The report: one HTML and one Markdown page with what was measured beside the paper's figures."""
