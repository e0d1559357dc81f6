"""Classify a text, or a pair of texts, with ONNX Runtime: python example.py TEXT [PAIR].

It needs: pip install onnxruntime tokenizers
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

FOLDER = Path(__file__).parent
COLUMNS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def predict(texts: list) -> list[dict]:
    """Return what the model says of each text; a pair is a tuple of two texts."""
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    names, thresholds = list(config["id2label"].values()), config["minibert"].get("thresholds")
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.enable_truncation(config["minibert"]["max_length"])
    tokenizer.enable_padding(pad_id=config["pad_token_id"])
    session = onnxruntime.InferenceSession(FOLDER / "onnx" / "model.onnx")
    rows = tokenizer.encode_batch(texts)
    inputs = [x.name for x in session.get_inputs()]
    feed = {name: np.array([getattr(row, COLUMNS[name]) for row in rows]) for name in inputs}
    logits = session.run(None, feed)[0].astype(np.float64)
    if config["problem_type"] == "regression":
        return [dict(zip(names, row, strict=True)) for row in logits.tolist()]
    if config["problem_type"] == "multi_label_classification":
        probabilities = 1 / (1 + np.exp(-logits))
        chosen = probabilities >= (thresholds or 0.5)
        labels = [[names[i] for i in np.flatnonzero(row)] for row in chosen]
    else:
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        best = probabilities.argmax(axis=1)
        if thresholds:  # of two classes, the second is predicted from its threshold on
            best = (probabilities[:, 1] >= thresholds[1]).astype(int)
        labels = [names[i] for i in best]
    return [
        {"label": label, "probabilities": dict(zip(names, row, strict=True))}
        for label, row in zip(labels, probabilities.tolist(), strict=True)
    ]


if __name__ == "__main__":
    print(json.dumps(predict([tuple(sys.argv[1:]) if sys.argv[2:] else sys.argv[1]])[0]))
