"""The folder of an export: graphs, config, tokenizer and an example, as their readers need them."""

import shutil
from pathlib import Path

from minibert.checkpoint.families import FAMILIES
from minibert.export.graph import write_graph
from minibert.export.onnx_runtime import quantize
from minibert.files import read_json, write_json
from minibert.inference.text_classifier import TextClassifier

GRAPH, QUANTIZED = "onnx/model.onnx", "onnx/model_quantized.onnx"


def write_folder(folder: Path, exported: TextClassifier, *, int8: bool) -> list[Path]:
    """Fill a folder with a classifier that `for_export` returned; return its graphs."""
    exported.save_settings(folder, exported.checkpoint.head)
    config = read_json(folder / "config.json")
    # Readers of a graph see here that it classifies. The graph has the head, of whatever kind.
    family = FAMILIES[exported.checkpoint.encoder.family]
    config["architectures"] = [family.class_prefix + "ForSequenceClassification"]
    write_json(folder / "config.json", config)
    shutil.copyfile(Path(__file__).with_name("example.py"), folder / "example.py")
    (folder / "onnx").mkdir()
    write_graph(folder / GRAPH, exported)
    if not int8:
        return [folder / GRAPH]
    quantize(folder / GRAPH, folder / QUANTIZED)
    return [folder / GRAPH, folder / QUANTIZED]
