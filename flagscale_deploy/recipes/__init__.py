"""Recipes of vLLM's maintainers as input: found, read, and translated into a serve YAML."""
