"""Serves a model with `vllm serve` in a Ray task, on whichever host has the GPUs that deploy.models asks for."""

import subprocess
import sys

from flagscale_deploy import serve  # `from flagscale import serve` does as well


@serve.remote(name="vllm_model")
def vllm_model(config):
    """Run the server; return its exit status when it ends."""
    flags = dict(config.serve.model_args.vllm_model)
    model, switches = flags.pop("model-tag"), flags.pop("action-args", None) or []
    words = ["vllm", "serve", model, *(f"--{flag}={value}" for flag, value in flags.items())]
    return subprocess.call(words + [f"--{switch}" for switch in switches])


if __name__ == "__main__":
    serve.init()
    sys.exit(serve.run(vllm_model.remote(serve.task_config)))
