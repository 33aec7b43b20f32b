# SPDX-License-Identifier: Apache-2.0
"""What ``model.json`` may say to vLLM where a policy judges it: the arguments of its engine, of
which many name programs, paths and places of the network; pure.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Iterator

from .allowed import Rules
from .allowed_parts import words
from .backends import backends_of
from .config_paths import text_of
from .config_pbtxt import ModelConfig

SETTINGS = "model.json"
LORAS = "multi_lora.json"
LARGEST = 1 << 20

# Numbers, switches, names of types, and the model's own name. Each was there when it was listed; a
# new one of vLLM is refused until it is.
_ARGUMENTS = words(
    "model tokenizer revision tokenizer_revision code_revision skip_tokenizer_init tokenizer_mode"
    " trust_remote_code load_format dtype kv_cache_dtype quantization_param_path seed max_model_len"
    " pipeline_parallel_size tensor_parallel_size data_parallel_size enable_expert_parallel"
    " max_parallel_loading_workers block_size enable_prefix_caching swap_space cpu_offload_gb"
    " gpu_memory_utilization max_num_batched_tokens max_num_seqs max_logprobs disable_log_stats"
    " disable_log_requests quantization rope_scaling rope_theta enforce_eager"
    " max_seq_len_to_capture"
    " disable_custom_all_reduce limit_mm_per_prompt mm_processor_kwargs enable_lora max_loras"
    " max_lora_rank lora_dtype fully_sharded_loras max_cpu_loras device enable_chunked_prefill"
    " scheduling_policy num_scheduler_steps multi_step_stream_outputs scheduler_delay_factor"
    " disable_sliding_window use_v2_block_manager disable_async_output_proc task runner"
    " served_model_name preemption_mode guided_decoding_backend async_scheduling"
    " disable_cascade_attn generation_config num_gpu_blocks_override"
)
_FORMATS = ("auto", "safetensors", "gguf", "bitsandbytes", "dummy")


def settings_in(config: ModelConfig, files: Collection[str]) -> tuple[str, ...]:
    """The files of a model folder that tell vLLM what to do; none of another backend's models."""
    if "vllm" not in backends_of(config, files):
        return ()
    return tuple(path for path in sorted(files) if posixpath.basename(path) in (SETTINGS, LORAS))


def why_not_set(rules: Rules, path: str, text: bytes) -> str | None:
    """What of vLLM's settings the rules do not allow, and the ways out; None where that is nothing.

    Args:
        path: of the file in the model folder.
    """
    return next(_reasons(rules, path, text), None) if rules else None


def _reasons(rules: Rules, path: str, text: bytes) -> Iterator[str]:
    out = f"and {rules.said}: take it out of {path}, and publish the model again"
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        yield f"{path} is no JSON object, so that what vLLM does is not known, and {rules.said}"
        return
    for key, value in settings.items():
        what = f"{path} has {key!r}"
        if path.endswith(f"/{SETTINGS}"):
            if key not in _ARGUMENTS:
                yield f"{what}, which is none that vLLM is known to run no code for, {out}"
            if key == "trust_remote_code" and value is not False:
                yield f"{what}, which runs code from wherever the weights come from, {out}"
            if key == "load_format" and value not in _FORMATS:
                yield f"{what} {value!r}, which may run code of the weights, {out}"
        for one in _texts(value):
            if not text_of(what, one).stays(rules.paths or ()):
                yield (
                    f"{what} with {one!r}, which is no plain name and in none of allowed_paths"
                    f" ({', '.join(rules.paths or ()) or 'none'}), and {rules.said}: add its folder"
                    " to allowed_paths, or name a model of the Hugging Face Hub"
                )


def _texts(value: object) -> Iterator[str]:
    """Of a value of JSON, keys included."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one
