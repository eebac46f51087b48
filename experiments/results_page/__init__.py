"""The tables and charts of docs/RESULTS.md, from what the measuring commands wrote: `make results`."""
