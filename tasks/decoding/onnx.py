"""A network in ONNX, on one thread of the CPU: the same numbers each time, and a process that may be forked."""

import onnxruntime


def load(path: str) -> onnxruntime.InferenceSession:
    """Return the network, ready to run.

    Raises:
        ValueError, onnxruntime's own: the file is no such network.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # threads do not survive a fork
    options.enable_cpu_mem_arena = False  # an arena takes more than is used, and the sandbox counts what is taken
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
