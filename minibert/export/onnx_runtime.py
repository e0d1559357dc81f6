"""ONNX files under ONNX Runtime: int8 weights, fused nodes, logits. Needs the extra `onnx`."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from minibert.errors import InputError
from minibert.files import write_atomic

FUSIONS = ("Attention", "SkipLayerNormalization", "BiasGelu")  # that BERT can have


def quantize(source: Path, file: Path) -> None:
    """Write a graph with int8 weights; activations are quantized batch by batch."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # 7 bits: on processors without VNNI instructions, sums of larger products saturate.
    options = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
    with TemporaryDirectory(dir=file.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        # Its symbolic inference of shapes fails on these graphs; ONNX's own follows.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        write_atomic(file, lambda path: quantize_dynamic(prepared, path, **options))


def start_session(file: Path, **options: Any) -> Any:
    """Return ONNX Runtime's session of a graph, on one CPU thread.

    Raises InputError if it fails, such as for a disk that is full.
    """
    import onnxruntime

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads, chosen.log_severity_level = 1, 3  # errors only
    for name, value in options.items():
        setattr(chosen, name, value)
    try:
        return onnxruntime.InferenceSession(file, chosen, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        if "ONNXRuntimeError" not in str(error):
            raise
        raise InputError(f"{file}: ONNX Runtime fails on it ({error})") from None


class OnnxModel(nn.Module):
    """A graph with the arguments and the logits of `Classifier.forward`."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.session = start_session(file)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """(B, S) ids -> logits (B, C)."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
        }
        feed = {x.name: inputs[x.name].long().numpy() for x in self.session.get_inputs()}
        return torch.from_numpy(self.session.run(None, feed)[0])


def describe_graph(file: Path) -> str:
    """Return a graph's size and number of nodes, and the fused ones that ONNX Runtime makes."""
    import onnx

    nodes = onnx.load(file, load_external_data=False).graph.node
    with TemporaryDirectory(dir=file.parent) as folder:
        optimized = Path(folder) / "optimized.onnx"
        start_session(file, optimized_model_filepath=str(optimized))
        run = onnx.load(optimized, load_external_data=False).graph.node
    fused = Counter(node.op_type for node in run if node.domain == "com.microsoft")
    listed = [f"{count} {name}" for name, count in fused.most_common()]
    listed += [f"no {name}" for name in FUSIONS if name not in fused]
    size = file.stat().st_size / 1e6
    return (
        f"{size:,.1f} MB, {len(nodes)} nodes; ONNX Runtime makes {len(run)} of them, "
        f"fused: {', '.join(listed)}"
    )
