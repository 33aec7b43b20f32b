# SPDX-License-Identifier: Apache-2.0
"""What a model of a backend may be made of where a policy judges it: tables, and no rules; pure.

What no table lists is refused. Each line is of the documentation or the source of Triton and its
backends; ``tests/unit/core/test_allowed.py`` compares the fields with Triton's own message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .config_pbtxt import COLUMNS_KEY, DEPLOY_ID_KEY
from .pyfunc import INTERFACE_KEY


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# They read their model's files as data. A backend that is not here runs programs, or may.
DATA_BACKENDS = frozenset({"onnxruntime", "fil", "tensorrt", "openvino", "ensemble"})

# Of messages that cannot name a file, a program or another model, every field that is known.
_MESSAGES = {
    "ModelConfig": "name platform backend version_policy max_batch_size input output batch_input"
    " batch_output optimization dynamic_batching sequence_batching ensemble_scheduling"
    " instance_group default_model_filename cc_model_filenames metric_tags parameters model_warmup"
    " model_transaction_policy response_cache model_metrics",
    "ModelVersionPolicy": "latest all specific",
    "ModelVersionPolicy.Latest": "num_versions",
    "ModelVersionPolicy.Specific": "versions",
    "ModelInput": "name data_type format dims reshape is_shape_tensor allow_ragged_batch optional"
    " is_non_linear_format_io",
    "ModelTensorReshape": "shape",
    "ModelOutput": "name data_type dims reshape label_filename is_shape_tensor"
    " is_non_linear_format_io",
    "BatchInput": "kind target_name data_type source_input",
    "BatchOutput": "target_name kind source_input",
    "ModelOptimizationPolicy": "graph priority cuda execution_accelerators input_pinned_memory"
    " output_pinned_memory gather_kernel_buffer_threshold eager_batching",
    "ModelOptimizationPolicy.Graph": "level",
    "ModelOptimizationPolicy.Cuda": "graphs busy_wait_events graph_spec output_copy_stream",
    "ModelOptimizationPolicy.Cuda.GraphSpec": "batch_size input graph_lower_bound",
    "ModelOptimizationPolicy.Cuda.GraphSpec.InputEntry": "key value",
    "ModelOptimizationPolicy.Cuda.GraphSpec.Shape": "dim",
    "ModelOptimizationPolicy.Cuda.GraphSpec.LowerBound": "batch_size input",
    "ModelOptimizationPolicy.Cuda.GraphSpec.LowerBound.InputEntry": "key value",
    "ModelOptimizationPolicy.ExecutionAccelerators": "gpu_execution_accelerator"
    " cpu_execution_accelerator",
    "ModelOptimizationPolicy.ExecutionAccelerators.Accelerator": "name parameters",
    "ModelOptimizationPolicy.ExecutionAccelerators.Accelerator.ParametersEntry": "key value",
    "ModelOptimizationPolicy.PinnedMemoryBuffer": "enable",
    "ModelDynamicBatching": "preferred_batch_size max_queue_delay_microseconds preserve_ordering"
    " priority_levels default_priority_level default_queue_policy priority_queue_policy",
    "ModelDynamicBatching.PriorityQueuePolicyEntry": "key value",
    "ModelQueuePolicy": "timeout_action default_timeout_microseconds allow_timeout_override"
    " max_queue_size",
    "ModelSequenceBatching": "direct oldest max_sequence_idle_microseconds control_input state"
    " iterative_sequence",
    "ModelSequenceBatching.StrategyDirect": "max_queue_delay_microseconds minimum_slot_utilization",
    "ModelSequenceBatching.StrategyOldest": "max_candidate_sequences preferred_batch_size"
    " max_queue_delay_microseconds preserve_ordering",
    "ModelSequenceBatching.ControlInput": "name control",
    "ModelSequenceBatching.Control": "kind int32_false_true fp32_false_true bool_false_true"
    " data_type",
    "ModelSequenceBatching.State": "input_name output_name data_type dims initial_state"
    " use_same_buffer_for_input_output use_growable_memory",
    "ModelSequenceBatching.InitialState": "data_type dims zero_data data_file name",
    "ModelEnsembling": "step max_inflight_requests",
    "ModelEnsembling.Step": "model_name model_version input_map output_map",
    "ModelEnsembling.Step.InputMapEntry": "key value",
    "ModelEnsembling.Step.OutputMapEntry": "key value",
    "ModelInstanceGroup": "name kind count rate_limiter gpus secondary_devices profile passive"
    " host_policy",
    "ModelRateLimiter": "resources priority",
    "ModelRateLimiter.Resource": "name global count",
    "ModelInstanceGroup.SecondaryDevice": "kind device_id",
    "ModelConfig.CcModelFilenamesEntry": "key value",
    "ModelConfig.MetricTagsEntry": "key value",
    "ModelConfig.ParametersEntry": "key value",
    "ModelParameter": "string_value",
    "ModelWarmup": "name batch_size inputs count",
    "ModelWarmup.InputsEntry": "key value",
    "ModelWarmup.Input": "data_type dims zero_data random_data input_data_file",
    "ModelTransactionPolicy": "decoupled",
    "ModelResponseCache": "enable",
    "ModelMetrics": "metric_control",
    "ModelMetrics.MetricControl": "metric_identifier histogram_options",
    "ModelMetrics.MetricControl.MetricIdentifier": "family",
    "ModelMetrics.MetricControl.HistogramOptions": "buckets",
}
FIELDS = frozenset(f"{name}.{one}" for name, fields in _MESSAGES.items() for one in fields.split())
# Each loads a library or a program, or calls what no list of this repository knows. The test of
# the table names them, so that a field which Triton gets one day is neither here nor there.
REFUSED_FIELDS = frozenset(
    {
        "ModelConfig.runtime",
        "ModelConfig.model_operations",
        "ModelConfig.model_repository_agents",
        "ModelEnsembling.Step.model_namespace",
    }
)

# Parameters, of a model or of an accelerator, that load a library wherever it lies.
LIBRARY_KEYS = frozenset(
    {"TRITON_BATCH_STRATEGY_PATH", "CPU_EXTENSION_PATH", "trt_extra_plugin_lib_paths"}
)
# A relative path in them is one of the server's working directory.
CACHE_KEYS = frozenset({"trt_engine_cache_path", "trt_timing_cache_path"})
# The server uses its working directory where they do not say another place.
CACHED_IN = {
    "trt_engine_cache_enable": "trt_engine_cache_path",
    "trt_timing_cache_enable": "trt_timing_cache_path",
    "int8_calibration_table_name": "trt_engine_cache_path",
}
# Read by nobody but this collection.
OWN_KEYS = frozenset({DEPLOY_ID_KEY, COLUMNS_KEY, INTERFACE_KEY})

_TRT = words(
    "precision_mode max_workspace_size_bytes trt_max_partition_iterations trt_min_subgraph_size"
    " int8_calibration_table_name int8_use_native_calibration_table trt_dla_enable trt_dla_core"
    " trt_engine_cache_enable"
    " trt_engine_cache_prefix trt_force_sequential_engine_build trt_context_memory_sharing_enable"
    " trt_layer_norm_fp32_fallback trt_timing_cache_enable trt_force_timing_cache"
    " trt_detailed_build_log trt_build_heuristics_enable trt_sparsity_enable"
    " trt_builder_optimization_level trt_auxiliary_streams trt_tactic_sources"
    " trt_profile_min_shapes trt_profile_max_shapes trt_profile_opt_shapes"
    " trt_cuda_graph_enable"
)
_CUDA = words(
    "cudnn_conv_algo_search cudnn_conv_use_max_workspace gpu_mem_limit arena_extend_strategy"
    " do_copy_in_default_stream use_ep_level_unified_stream enable_cuda_graph"
    " cudnn_conv1d_pad_to_nc1d tunable_op_enable tunable_op_tuning_enable prefer_nhwc"
    " use_tf32"
)
_ONNX_RUNTIME = words(
    "intra_op_thread_count inter_op_thread_count execution_mode level enable_mem_arena"
    " enable_mem_pattern memory.enable_memory_arena_shrinkage cudnn_conv_algo_search gpu_mem_limit"
    " arena_extend_strategy do_copy_in_default_stream session.set_denormal_as_zero"
    " session.disable_prepacking session.use_env_allocators"
    " session.use_device_allocator_for_initializers session.intra_op.allow_spinning"
    " session.inter_op.allow_spinning session.force_spinning_stop session.dynamic_block_base"
    " session.intra_op_thread_affinities session.disable_quant_qdq session.enable_quant_qdq_cleanup"
    " session.disable_double_qdq_remover session.qdqisint8allowed"
    " session.x64quantprecision session.strict_shape_type_inference"
    " session.disable_aot_function_inlining session.disable_cpu_ep_fallback"
    " optimization.enable_gelu_approximation"
    " optimization.minimal_build_optimizations"
)
_FIL = words(
    "model_type predict_proba output_class is_classifier threshold algo storage_type blocks_per_sm"
    " threads_per_tree chunk_size transfer_threshold use_experimental_optimizations layout"
    " precision treeshap_output xgboost_allow_unknown_field cpu_nthread"
)
_OPENVINO = words(
    "CPU_THREADS_NUM ENFORCE_BF16 CPU_BIND_THREAD CPU_THROUGHPUT_STREAMS SKIP_DYNAMIC_BATCHSIZE"
    " INFERENCE_NUM_THREADS COMPILATION_NUM_THREADS HINT_BF16 NUM_STREAMS SKIP_OV_DYNAMIC_BATCHSIZE"
    " ENABLE_BATCH_PADDING RESHAPE_IO_LAYOUTS TARGET_DEVICE"
)
_PYTORCH = words(
    "DISABLE_OPTIMIZED_EXECUTION INFERENCE_MODE ENABLE_NVFUSER ENABLE_WEIGHT_SHARING"
    " ENABLE_CACHE_CLEANING ENABLE_JIT_EXECUTOR ENABLE_JIT_PROFILING ENABLE_TENSOR_FUSER"
    " INTRA_OP_THREAD_COUNT INTER_OP_THREAD_COUNT DISABLE_CUDNN"
)
_TENSORFLOW = words(
    "TF_NUM_INTRA_THREADS TF_NUM_INTER_THREADS TF_USE_PER_SESSION_THREADS TF_GRAPH_TAG"
    " TF_SIGNATURE_DEF MAX_SESSION_SHARE_COUNT"
)


@dataclass(frozen=True)
class Parts:
    """What a backend's models may be made of.

    Attributes:
        platforms: what ``platform`` may be beside the backend.
        parameters: their keys.
        accelerators: name → keys of the parameters, of ``execution_accelerators``.
        endings: of files in version folders.
        files: what else may lie in a version folder, as a pattern over the path in it.
    """

    platforms: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    accelerators: dict[str, frozenset[str]] | None = None
    endings: tuple[str, ...] = ()
    files: re.Pattern[str] | None = None


# Backends that are not here are those that run what their models bring (Python, vLLM, …), or that
# nobody knows: their files and parameters are their own.
PARTS: dict[str, Parts] = {
    "onnxruntime": Parts(
        frozenset({"onnxruntime_onnx"}),
        _ONNX_RUNTIME,
        {
            "tensorrt": _TRT.union(CACHE_KEYS),
            "cuda": _CUDA,
            "openvino": frozenset(),
        },
        (".onnx", ".data", ".onnx_data", ".bin", ".weight", ".bias", ".pb", ".raw"),
        re.compile(r"(?:[^/]+/)*(?:onnx__[A-Za-z0-9_.]+|[^/]+\.onnx_data_[0-9]+)"),
    ),
    "fil": Parts(
        frozenset({"fil"}),
        _FIL,
        {},
        (".model", ".json", ".ubj", ".bst", ".xgb", ".txt", ".lgb", ".tl"),
    ),
    "tensorrt": Parts(
        frozenset({"tensorrt_plan"}),
        frozenset({"execution_context_allocation_strategy"}),
        {},
        (".plan", ".engine", ".trt"),
    ),
    "openvino": Parts(
        frozenset(),
        _OPENVINO,
        {},
        (".xml", ".bin", ".onnx", ".pdmodel", ".pdiparams", ".pb", ".tflite"),
    ),
    "pytorch": Parts(
        frozenset({"pytorch_libtorch", "torch_aoti"}),
        _PYTORCH,
        {},
        (".pt", ".pth", ".pt2"),
    ),
    "tensorflow": Parts(
        frozenset({"tensorflow_graphdef", "tensorflow_savedmodel"}),
        _TENSORFLOW,
        {
            "tensorrt": words(
                "precision_mode max_cached_engines minimum_segment_size max_workspace_size_bytes"
                " is_dynamic_op"
            ),
            "auto_mixed_precision": frozenset(),
            "gpu_io": frozenset(),
        },
        (".graphdef", ".pb", ".pbtxt"),
        re.compile(r"(?:[^/]+/)*(?:variables|assets|assets\.extra)/.+"),
    ),
    "dali": Parts(frozenset(), frozenset({"num_threads", "release_after_unload"}), {}, (".dali",)),
    "ensemble": Parts(frozenset({"ensemble"}), frozenset(), {}),
}

# Beside any model: what is written for its readers, and what this collection and others add.
DOCUMENTS = re.compile(
    r"[^/]+\.(?:md|txt|json)|(?:LICEN[CS]E|README|NOTICE|COPYING|CHANGELOG)[A-Za-z0-9_-]*"
    r"|model\.sig|labels?\.(?:csv|tsv)|[^/]+\.labels"
)
