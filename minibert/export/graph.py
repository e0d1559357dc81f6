"""A classifier to an ONNX graph: token ids in, logits out, for any number and length of texts."""

import warnings
from dataclasses import replace
from pathlib import Path

import torch

from minibert.checkpoint.load import Checkpoint
from minibert.checkpoint.save import folded_head
from minibert.files import write_atomic
from minibert.inference.text_classifier import TextClassifier
from minibert.model.classifier import Classifier
from minibert.model.config import LongTexts

OPSET = 17  # the first with LayerNormalization


def for_export(classifier: TextClassifier) -> TextClassifier:
    """Return the classifier as readers of its graph see it; the encoder is shared.

    They read raw logits and one row of tokens per text: the temperature is in the output layer's
    weights, and long texts are cut.
    """
    model = classifier.model
    head = folded_head(model.head, model.head.config.temperature)
    head.config = replace(head.config, temperature=1.0, long_texts=LongTexts())
    exported = Classifier(model.encoder, head, pooling=model.pooling).eval()
    return TextClassifier(
        Checkpoint(exported, classifier.checkpoint.encoder, ()), classifier.tokenizer
    )


def write_graph(file: Path, exported: TextClassifier) -> None:
    """Write the graph of a classifier that `for_export` returned.

    Inputs are int64 (B, S): input_ids, attention_mask, and token_type_ids if the tokenizer has
    types. The output is logits, float32 (B, C).
    """
    ids = torch.ones(2, 9, dtype=torch.int64)
    mask = (torch.arange(9) < torch.tensor([[9], [5]])).long()
    inputs = {"input_ids": ids, "attention_mask": mask}
    if exported.tokenizer.token_types:
        inputs["token_type_ids"] = torch.zeros_like(ids)
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in inputs}

    def export(path: Path) -> None:
        # The older exporter: quantize_dynamic refuses the graph of the newer one, and ONNX Runtime
        # was not faster with it.
        torch.onnx.export(
            exported.model,
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "batch_size"}},
            opset_version=OPSET,
            dynamo=False,
        )

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is older, and that shapes are traced
        write_atomic(file, export)
