"""The flags of vllm-router 0.1.17, without `--`.

Source: the parser that `vllm-router` builds, read out by `tests/e2e/test_router_parser.py`, which fails and shows what
differs when another version does.
"""

from __future__ import annotations

from typing import Final

SET_BY_US: Final = frozenset({"worker-urls", "decode", "kv-connector", "prefill", "vllm-pd-disaggregation"})
"""Flags whose values follow from the plan. Host, port, policy and prometheus-port have keys of their own."""

OF_OTHER_MODES: Final = frozenset(
    """
    decode-selector enable-igw mini-lb pd-kv-events prefill-selector selector service-discovery
    service-discovery-namespace service-discovery-port vllm-discovery-address
    """.split()  # noqa: SIM905 (one name a line would hide the other tables)
)
"""Flags of Kubernetes and of other gateways: modes that are not run here."""

FLAGS: Final = frozenset(
    """
    balance-abs-threshold balance-rel-threshold cache-threshold cb-failure-threshold cb-success-threshold
    cb-timeout-duration-secs cb-window-duration-secs cors-allowed-origins decode-policy disable-circuit-breaker
    disable-retries enable-program-scheduling eviction-interval-secs health-check-endpoint health-check-interval-secs
    health-check-timeout-secs health-failure-threshold health-success-threshold intra-node-data-parallel-size
    kv-aware-session-affinity-ttl-secs kv-event-block-size kv-event-model kv-event-replay-source kv-event-source
    kv-penalty-disk kv-penalty-external kv-penalty-host log-dir log-level max-concurrent-requests max-payload-size
    max-tree-size prefill-policy program-scheduling-config-json prometheus-host queue-size queue-timeout-secs
    rate-limit-tokens-per-second request-id-headers request-timeout-secs retry-backoff-multiplier
    retry-initial-backoff-ms retry-jitter-factor retry-max-backoff-ms retry-max-retries router-temperature
    wasm-middleware wasm-middleware-route wasm-middleware-sha256 worker-startup-check-interval
    worker-startup-timeout-secs
    """.split()  # noqa: SIM905
)
"""Flags that are passed on unchanged. `api-key` is not among them: it is the model's, and is sent in a file."""
