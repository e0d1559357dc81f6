"""Each family through train.py, eval.py and predict.py, with a tokenizer as its checkpoints have.

Run: pytest tests/test_families.py
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import write_checkpoint
from tokens import byte_level_bpe, unigram

import minibert

ENCODERS: dict[str, tuple[str, Callable[[Path], Path] | None]] = {
    "bert": ("bert", None),
    "distilbert": ("distilbert", None),
    "electra": ("electra", None),
    "roberta": ("roberta", byte_level_bpe),
    "xlm-roberta": (
        "xlm-roberta",
        lambda folder: unigram(folder, "xlm-roberta", "XLMRobertaTokenizer"),
    ),
    "camembert": ("camembert", lambda folder: unigram(folder, "camembert", "CamembertTokenizer")),
    "multilingual-e5": ("bert", lambda folder: unigram(folder, "bert", "XLMRobertaTokenizer")),
}
TEXTS = ["a good film", "not <pad> a very good soup", "cold"]


def checkpoint(folder: Path, name: str) -> Path:
    """Write a random encoder of a family, with its kind of tokenizer."""
    family, write_tokenizer = ENCODERS[name]
    if write_tokenizer is None:
        return write_checkpoint(folder, family)
    pad = 0 if family == "bert" else 1
    write_checkpoint(folder, family, vocab_size=400, pad_token_id=pad, positions=42)
    (folder / "vocab.txt").unlink()
    for file in write_tokenizer(folder.parent / "tokenizer").iterdir():
        if file.name != "config.json":
            file.rename(folder / file.name)
    return folder


@pytest.mark.parametrize("name", ENCODERS)
def test_a_run_of_each_family_opens_in_minibert_and_in_transformers(
    name: str, reviews: Path, tmp_path: Path, run_script: Callable[..., Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    model = checkpoint(tmp_path / name, name)
    options = ["--head", "native", "--max-length", "40", "--precision", "fp32", "--out", "run"]
    rates = ["--encoder-lr", "3e-3", "--head-lr", "3e-3", "--epochs", "4"]
    trained = run_script("train.py", "--model", model, "--data", reviews, *options, *rates)
    assert trained.returncode == 0, trained.stderr
    scored = run_script("eval.py", "--model", "run", "--precision", "fp32")
    assert scored.returncode == 0, scored.stderr
    metrics = json.loads((run_script.place / "run" / "metrics.json").read_text())
    assert f"loss {metrics['test']['loss']:.4f}" in scored.stdout

    predicted = run_script("predict.py", "--model", "run", "--precision", "fp32", "--raw", *TEXTS)
    assert predicted.returncode == 0, predicted.stderr
    rows = [json.loads(line) for line in predicted.stdout.splitlines()]

    run = run_script.place / "run"
    theirs, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        run, output_loading_info=True
    )
    assert not any(loading.values()), loading
    batch = transformers.AutoTokenizer.from_pretrained(run)(
        TEXTS, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = theirs.eval()(**batch).logits.softmax(dim=-1)
    found = torch.as_tensor(
        minibert.load(str(run), precision="fp32", raw=True).predict_proba(TEXTS)
    )
    torch.testing.assert_close(found.float(), expected, rtol=1e-5, atol=1e-5)
    probability, number = expected.max(dim=-1)
    assert [row["probability"] for row in rows] == pytest.approx(probability.tolist(), abs=1e-4)
    assert [row["label"] for row in rows] == [theirs.config.id2label[i] for i in number.tolist()]
