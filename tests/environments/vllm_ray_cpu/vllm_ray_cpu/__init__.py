"""A vLLM platform plugin: the CPU, as a platform that Ray may place workers on.

vLLM 0.32 refuses Ray on CPU ("current platform cpu does not support ray") since its CPU platform names no Ray resource.
With this plugin tensor parallelism over two Ray nodes gives correct completions on machines without a GPU.
Pipeline parallelism starts and answers /health, and dies at the first token: a limit of vLLM's CPU worker.
"""

from torch._dynamo import config as dynamo


def register() -> str:
    """Return the name of the platform class, which vLLM imports in every process that serves."""
    # Even with --enforce-eager, vLLM compiles the tensor-parallel embedding lookup at the first token: 25 s on two
    # cores where there is a C++ compiler, an InductorError where there is none. The completion is the same without.
    # TORCH_COMPILE_DISABLE would be read too early: Ray's workers have imported this before they call.
    dynamo.disable = True
    return "vllm_ray_cpu.platform.RayCpuPlatform"
