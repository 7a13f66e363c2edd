"""The documentation: pages in Markdown. `docs.generate` writes those parts of them that come from the code."""
