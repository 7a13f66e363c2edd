"""The environments that tests and demo run hosts with: real vLLM (CPU) with Ray, and a tiny Qwen2. See `build.py`."""
