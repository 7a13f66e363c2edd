#!/usr/bin/env bash
# The best that a careful person writes by hand for two hosts: both start at the same time, nothing is waited for that
# can be polled, nothing is checked. Ends when a completion has come back.
#   two_hosts.sh HEAD WORKER VENV MODEL PORT SSH…
set -euo pipefail
head=$1 worker=$2 venv=$3 model=$4 port=$5
shift 5
environment="set -e; . $venv/bin/activate; export RAY_AUTH_MODE=disabled HF_HUB_OFFLINE=1 VLLM_CPU_KVCACHE_SPACE=1
export VLLM_CPU_OMP_THREADS_BIND=nobind GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0
export VLLM_CACHE_ROOT=$model/.start PYTHONPATH=$model/.start"
start="ray start --num-gpus=1 --disable-usage-stats --temp-dir=/tmp/peer"

"$@" "root@$worker" "$environment VLLM_HOST_IP=$worker
until timeout 2 bash -c '</dev/tcp/$head/6379' 2>/dev/null; do sleep 0.1; done
$start --address=$head:6379 --node-ip-address=$worker </dev/null >/tmp/peer.log 2>&1" &
"$@" "root@$head" "$environment VLLM_HOST_IP=$head
$start --head --port=6379 --node-ip-address=$head </dev/null >/tmp/peer.log 2>&1"
wait $!
"$@" "root@$head" "$environment VLLM_HOST_IP=$head RAY_ADDRESS=$head:6379
setsid vllm serve $model --served-model-name=tiny --tensor-parallel-size=2 --distributed-executor-backend=ray \
  --max-model-len=512 --max-num-seqs=4 --enforce-eager --port=$port \
  --override-generation-config='{\"temperature\": 0}' </dev/null >/tmp/serve.log 2>&1 &
for _ in \$(seq 1800); do
  curl -sf -o /dev/null http://127.0.0.1:$port/v1/completions -H 'Content-Type: application/json' \
    -d '{\"model\": \"tiny\", \"prompt\": \"Hello\", \"max_tokens\": 1}' && exit 0
  sleep 0.1
done
tail -50 /tmp/serve.log; exit 1"
