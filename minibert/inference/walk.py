"""One text's walk through a classifier: what each module returns, recorded while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from minibert.errors import InputError
from minibert.inference.text_classifier import TextClassifier
from minibert.model.classifier import Classifier
from minibert.model.encoder import Block, attention


@dataclass(frozen=True)
class Walk:
    """What happens to one text, or pair of texts, of S tokens."""

    pieces: list[str]  # the tokens, S
    ids: Tensor  # (1, S)
    token_types: Tensor  # (1, S); zeros if the model has none
    stages: dict[str, Tensor]  # outputs in the order of computation: (1, S, D), (1, D) or (1, C)
    attention: Tensor  # (H, S): the weights that the last layer's first token gives to each token

    @property
    def logits(self) -> Tensor:
        """(1, C)."""
        return self.stages["logits"]


@torch.no_grad()
def walk(classifier: TextClassifier, text: str, pair: str | None = None) -> Walk:
    """Run a text through the model once and return what each stage computed.

    The model ends in evaluation mode. Raises InputError for a text over the model's max_length.
    """
    model = classifier.model.eval()
    tokenized = classifier.tokenize(text, pair)
    if not tokenized.is_whole:
        longest = classifier.checkpoint.head.max_length
        raise InputError(f"the text has over {longest} tokens; give one that the model takes whole")
    ids, mask, types = classifier.dataset_of(tokenized).batch([0]).inputs
    assert ids is not None
    last = model.encoder.blocks[-1]
    assert isinstance(last, Block)
    with recorded({**stage_modules(model), "qkv": last.attention.qkv}, model.head) as outputs:
        model(ids, mask, types)
    backend = classifier.tokenizer.backend
    return Walk(
        pieces=[str(backend.id_to_token(number)) for number in ids[0].tolist()],
        ids=ids,
        token_types=torch.zeros_like(ids) if types is None else types,
        attention=first_token_weights(outputs.pop("qkv"), last.attention.heads),
        stages=outputs,
    )


def stage_modules(model: Classifier) -> dict[str, nn.Module]:
    """Return the modules whose outputs are the stages of a walk; the first layer in detail."""
    embeddings, blocks = model.encoder.embeddings, model.encoder.blocks
    first = blocks[0]
    assert isinstance(first, Block)
    return {
        "word vectors": embeddings.word,
        "embeddings": embeddings,
        "layer 1: attention": first.attention,
        "layer 1: norm of the sum": first.attention_norm,
        "layer 1: feed-forward": first.feed_forward,
        **{f"layer {number}": block for number, block in enumerate(blocks, start=1)},
        "logits": model.head,
    }


@contextmanager
def recorded(modules: dict[str, nn.Module], head: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record the outputs of modules by name, and the head's input as "features"."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        outputs[name] = output

    def keep_input(_: nn.Module, inputs: tuple[Tensor]) -> None:
        outputs["features"] = inputs[0]

    hooks = [m.register_forward_hook(partial(keep, name)) for name, m in modules.items()]
    hooks.append(head.register_forward_pre_hook(keep_input))
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def first_token_weights(qkv: Tensor, heads: int) -> Tensor:
    """Return the attention weights (H, S) of the first token, from a layer's (1, S, 3 D) product.

    Attention times an identity matrix, in place of the values, is its weights.
    """
    tokens = qkv.shape[1]
    q, k, _ = qkv.view(1, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
    identity = torch.eye(tokens).expand(1, heads, tokens, tokens)
    return attention(q[:, :, :1], k, identity, None, dropout_p=0.0)[0, :, 0]
