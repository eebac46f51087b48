"""The parts of the report: what was measured, the paper's tables beside it, pictures, and the two pages."""
