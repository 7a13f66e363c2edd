"""Functions and classes as Ray tasks and actors, with their options from the configuration."""

import threading
from typing import Any, Callable, Dict, Optional

from flagscale_deploy.serve.config import Config, prepare

OURS = ("hosts", "model_name", "num_replicas", "replicas")
"""Keys of `deploy.models.<name>` that are not options of `ray.remote`."""


def remote(target: Optional[Callable[..., Any]] = None, *, name: Optional[str] = None, **options: Any) -> Any:
    """Call `ray.remote` with these options, overridden by those of `deploy.models.<name>`.

    `name` is its name in Ray, too; without it, the options are those for the name of the function or class.
    Returns what `ray.remote` returns.
    """

    def decorate(target: Callable[..., Any]) -> Any:
        import ray

        named = {} if name is None else {"name": name}  # type: Dict[str, Any]
        merged = {**named, **options, **configured(prepare(), name or target.__name__)}
        return ray.remote(**merged)(target) if merged else ray.remote(target)

    return decorate if target is None else decorate(target)


def configured(config: Config, name: str) -> Dict[str, Any]:
    """Return the options of `ray.remote` in `deploy.models.<name>`, under `serve`, or `experiment` for a list form."""
    for root in ("serve", "experiment"):
        place = config.get(root)
        for key in ("deploy", "models", name):
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, dict):
            options = {key.replace("-", "_"): value for key, value in place.items() if value is not None}
            return {key: value for key, value in options.items() if key not in OURS}
    return {}


def init(**settings: Any) -> None:
    """Join the deployment's Ray cluster, once; `settings` are those of `ray.init`."""
    import ray

    ray.init(**{"ignore_reinit_error": True, **settings})


def run(*work: Any) -> Any:
    """Wait for tasks and return their results: of one its result, of several a list.

    Without any, wait until the program is stopped. Raises what a task raised.
    """
    import ray

    if not ray.is_initialized():
        init()
    if work:
        return ray.get(work[0] if len(work) == 1 else list(work))
    threading.Event().wait()
    return None


def stop() -> None:
    """Leave the cluster; this program's tasks and actors end."""
    import ray

    ray.shutdown()
