"""The product with older and newer releases of vLLM, really run: `python -m tests.versions` writes docs/versions.md."""
