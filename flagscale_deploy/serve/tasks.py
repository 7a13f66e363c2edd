"""Functions and classes as Ray tasks and actors, with the options that the configuration has for them."""

import threading
from typing import Any, Callable, Dict, Optional

from flagscale_deploy.serve.config import Config, prepare

OURS = ("hosts", "model_name", "num_replicas", "replicas")
"""Keys of `deploy.models.<name>` that are no options of `ray.remote`."""


def remote(target: Optional[Callable[..., Any]] = None, *, name: Optional[str] = None, **options: Any) -> Any:
    """`ray.remote`, with `deploy.models.<name>` over the options given here; `name` is its name in Ray, too.

    Without a name, the function's or class's own is looked up. Returns what `ray.remote` returns.
    """

    def decorate(target: Callable[..., Any]) -> Any:
        import ray

        named = {} if name is None else {"name": name}  # type: Dict[str, Any]
        merged = {**named, **options, **configured(prepare(), name or target.__name__)}
        return ray.remote(**merged)(target) if merged else ray.remote(target)

    return decorate if target is None else decorate(target)


def configured(config: Config, name: str) -> Dict[str, Any]:
    """The options of `ray.remote` that `deploy.models.<name>` has: under `serve`, or `experiment` for a list form."""
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
    """Wait for what tasks return: of one its result, of several a list; without any, stay until the program is stopped.

    What a task raised is raised here.
    """
    import ray

    if not ray.is_initialized():
        init()
    if work:
        return ray.get(work[0] if len(work) == 1 else list(work))
    threading.Event().wait()
    return None


def stop() -> None:
    """Leave the cluster; tasks and actors of this program end."""
    import ray

    ray.shutdown()
