"""Say how vLLM 0.32 parses the flags that are not simply `--key=value`.

Source: the parser that `vllm serve` builds (`make_arg_parser`), read by `tests/e2e/test_vllm_parser.py`, which fails
and shows the differences for another version. A flag that is in no table takes one value.
"""

from __future__ import annotations

from typing import Final

BOOLEANS: Final = frozenset(
    """
    allow-credentials allow-deprecated-quantization async-scheduling cohere-is-reasoning-model cudagraph-metrics
    data-parallel-external-lb data-parallel-hybrid-lb dcp-q-replicate disable-cascade-attn
    disable-chunked-mm-input disable-custom-all-reduce disable-fastapi-docs disable-hybrid-kv-cache-manager
    disable-nccl-for-dp-synchronization disable-sliding-window disable-uvicorn-access-log
    enable-auto-tool-choice enable-batch-sharded-sampling enable-chunked-prefill enable-cumem-allocator
    enable-dbo enable-elastic-ep enable-ep-weight-filter enable-eplb enable-expert-parallel
    enable-fault-tolerance enable-flash-late-interaction enable-flashinfer-autotune enable-force-include-usage
    enable-hc-sp enable-layerwise-nvtx-tracing enable-log-deltas enable-log-outputs enable-log-requests
    enable-logging-iteration-details enable-lora enable-mamba-cache-stochastic-rounding
    enable-mamba-shared-prefix-checkpoint enable-mfu-metrics enable-mixed-moe-lora-format enable-mm-embeds
    enable-moe-shared-loras enable-nccl-comm-suspend enable-offline-docs enable-per-request-metrics
    enable-prefix-caching enable-prompt-embeds enable-prompt-tokens-details enable-request-id-headers
    enable-return-routed-experts enable-scale-out enable-server-load-tracking enable-shm-tensor-arena
    enable-sleep-mode enable-ssl-refresh enable-tokenizer-info-endpoint enable-tower-connector-lora
    enable-trace-replay enforce-eager exclude-tools-when-tool-choice-none fail-on-environ-validation
    fully-sharded-loras interleave-mm-strings jit-monitor-verbose kv-cache-metrics kv-sharing-fast-prefill
    language-model-only log-error-stack long-prefill-token-threshold-adaptive mm-device-do-normalize
    mm-encoder-only numa-bind ray-workers-use-nsight return-sampling-mask return-tokens-as-token-ids
    scheduler-reserve-full-isl skip-mm-profiling skip-tokenizer-init sleep-mode-offload-cudagraph
    specialize-active-lora swa-bounded-replay tokens-only trust-remote-code trust-request-chat-template
    trust-request-mm-kwargs use-fp64-gumbel use-replayssm use-tqdm-on-load
    """.split()  # noqa: SIM905 (one name a line would hide the other tables)
)
"""Flags that exist as `--key` and as `--no-key`."""

SWITCHES: Final = frozenset(
    """
    aggregate-engine-logging data-parallel-multi-port-external-lb disable-log-stats grpc headless
    """.split()  # noqa: SIM905 (one name a line would hide the other tables)
)
"""Flags that exist as `--key` only: off is their absence."""

WORD_LISTS: Final = frozenset(
    """
    allowed-media-domains api-key collect-detailed-traces cpu-offload-params cudagraph-capture-sizes
    ignore-patterns kv-cache-dtype-skip-layers logits-processors lora-modules lora-target-modules numa-bind-cpus
    numa-bind-nodes offload-params served-model-name sleep-preserve-parameter-names
    """.split()  # noqa: SIM905 (one name a line would hide the other tables)
)
"""Flags of one or more values as separate words (`nargs="+"`)."""

JSON_LISTS: Final = frozenset({"allowed-headers", "allowed-methods", "allowed-origins"})
"""Flags whose list is one value, in JSON."""

COMMA_LISTS: Final = frozenset({"device-ids"})
"""Flags whose list is one value with commas."""

REPEATED: Final = frozenset({"middleware"})
"""Flags given once for each value."""

SPACED: Final = frozenset({"config"})
"""Flags seen only as `--key value`: vLLM looks for the bare word before its parser runs."""
