"""What runs in a deployment: vLLM's servers and ranks, Ray's nodes, the model's files."""
