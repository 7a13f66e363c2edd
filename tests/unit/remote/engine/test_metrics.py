"""vLLM's metrics: pages as vLLM 0.32 and 0.8 write them, shortened."""

from __future__ import annotations

from flagscale_deploy.remote.engine.metrics import Sample, engines, parse

PAGE = """\
# HELP python_gc_objects_collected_total Objects collected during gc
python_gc_objects_collected_total{generation="0"} 8642.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 2.0
vllm:num_requests_running{engine="1",model_name="tiny"} 1.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 9.5e-01
vllm:num_preemptions_total{engine="0",model_name="tiny"} 0.0
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 12.0
vllm:generation_tokens_total{engine="0",model_name="tiny"} 1.5e+03
vllm:generation_tokens_created{engine="0",model_name="tiny"} 1.79e+09
vllm:request_success_total{engine="0",finished_reason="stop",model_name="a } b"} 5.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"} 6.0
"""


def test_figures_are_summed_over_engines_and_the_fullest_cache_counts() -> None:
    assert parse(PAGE) == {
        "running": 3, "waiting": 4, "kv_cache": 0.95, "preemptions": 0, "prompt_tokens": 12, "generation_tokens": 1500,
        "finished": 11,
    }  # fmt: skip


def test_an_older_name_of_the_cache_is_known() -> None:
    assert parse('vllm:gpu_cache_usage_perc{model_name="x"} 0.5\n') == {"kv_cache": 0.5}


def test_a_page_without_vllm_has_no_figures() -> None:
    assert parse("process_cpu_seconds_total 7\nnot a metric\n") is None


def test_each_engine_has_its_own_work_and_counters() -> None:
    page = (
        PAGE
        + """\
vllm:iteration_tokens_total_count{engine="0",model_name="x,engine=\\"7\\""} 9.0
vllm:iteration_tokens_total_count{engine="1",model_name="tiny"} 8.0
vllm:engine_sleep_state{engine="1",model_name="tiny",sleep_state="awake"} 0.0
vllm:engine_sleep_state{engine="0",model_name="tiny",sleep_state="awake"} 1.0
vllm:engine_sleep_state{engine="0",model_name="tiny",sleep_state="discard_all"} 0.0
"""
    )
    assert engines(page) == {
        "0": Sample(2.0, 4.0, (9.0, 1500.0, 12.0)),
        "1": Sample(1.0, 0.0, (8.0, 0.0, 0.0), awake=False),
    }
    assert engines("vllm:num_requests_running 1\nvllm:prompt_tokens_total 3\n") == {"": Sample(1.0, 0.0, (0, 0, 3.0))}


def test_an_engine_that_counts_no_tokens_is_none_to_judge() -> None:
    assert engines("vllm:num_requests_running 1.0\n") == {}
    assert engines("process_cpu_seconds_total 7\nvllm:prompt_tokens_total nan\n") == {}
