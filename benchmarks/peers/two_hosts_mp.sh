#!/usr/bin/env bash
# The best that a careful person writes by hand for two hosts without Ray: both `vllm serve` at the same time, nothing is
# checked. Ends when a completion has come back.
#   two_hosts_mp.sh HEAD WORKER VENV MODEL PORT SSH…
set -euo pipefail
head=$1 worker=$2 venv=$3 model=$4 port=$5
shift 5
environment="set -e; . $venv/bin/activate; export HF_HUB_OFFLINE=1 VLLM_CPU_KVCACHE_SPACE=1
export VLLM_CPU_OMP_THREADS_BIND=nobind GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0
export VLLM_CACHE_ROOT=$model/.start PYTHONPATH=$model/.start"
serve="setsid vllm serve $model --served-model-name=tiny --tensor-parallel-size=2 --distributed-executor-backend=mp \
  --nnodes=2 --master-addr=$head --master-port=29501 --max-model-len=512 --max-num-seqs=4 --enforce-eager \
  --override-generation-config='{\"temperature\": 0}'"

"$@" "root@$worker" "$environment VLLM_HOST_IP=$worker
$serve --node-rank=1 --headless </dev/null >/tmp/serve.log 2>&1 &"
"$@" "root@$head" "$environment VLLM_HOST_IP=$head
$serve --node-rank=0 --port=$port </dev/null >/tmp/serve.log 2>&1 &
for _ in \$(seq 1800); do
  curl -sf -o /dev/null http://127.0.0.1:$port/v1/completions -H 'Content-Type: application/json' \
    -d '{\"model\": \"tiny\", \"prompt\": \"Hello\", \"max_tokens\": 1}' && exit 0
  sleep 0.1
done
tail -50 /tmp/serve.log; exit 1"
