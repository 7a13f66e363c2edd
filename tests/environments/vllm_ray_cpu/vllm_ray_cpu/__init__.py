"""A vLLM platform plugin: the CPU, as a platform that Ray may place workers on.

vLLM 0.32 refuses Ray on CPU ("current platform cpu does not support ray") since its CPU platform names no Ray resource.
With this plugin tensor parallelism over two Ray nodes gives correct completions on machines without a GPU.
Pipeline parallelism starts and answers /health, and dies at the first token: a limit of vLLM's CPU worker.
"""


def register() -> str:
    """The platform class, by name: vLLM imports it when it chooses its platform."""
    return "vllm_ray_cpu.platform.RayCpuPlatform"
