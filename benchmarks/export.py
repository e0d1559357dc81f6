"""A checkpoint's ONNX files, for the engines: made once, in a process of its own.

python -m benchmarks.export FOLDER fp32|int8
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.task import ROOT


def exported(folder: str, precision: str) -> Path:
    """Return a checkpoint's ONNX file, making it first where it is not there."""
    file = Path(folder) / f"{precision}.onnx"
    if not file.exists():
        subprocess.run(
            [sys.executable, "-m", "benchmarks.export", folder, precision], cwd=ROOT, check=True
        )
    return file


def export(folder: str, file: Path) -> None:
    """Write transformers' model as ONNX, for any batch and length."""
    import torch
    from transformers import AutoModelForSequenceClassification

    # The graph of eager attention, traced by the older exporter, is the fastest in ONNX Runtime,
    # which fuses it when it loads; the newer exporter's is slower, and quantize_dynamic refuses it.
    # To OpenVINO they are alike.
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    ids = torch.ones(2, 9, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(
        model.eval(),
        (),
        file,
        kwargs=dict(zip(names, (ids, mask), strict=True)),
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
        opset_version=17,
        dynamo=False,
    )


def quantize(source: Path, file: Path) -> None:
    """Write int8 weights, a scale a column; activations are quantized as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, file, per_channel=True, weight_type=QuantType.QInt8)


def main(argv: Sequence[str]) -> None:
    """Write one file."""
    folder, precision = argv
    file = Path(folder) / f"{precision}.onnx"
    beside = file.with_suffix(".new")
    if precision == "int8":
        quantize(exported(folder, "fp32"), beside)
    else:
        export(folder, beside)
    beside.rename(file)


if __name__ == "__main__":
    main(sys.argv[1:])
