"""Serve large models with vLLM over Ray on bare-metal hosts, driven over SSH."""

__version__ = "0.1.0"
