"""Which words a prediction rests on: integrated gradients on the word embeddings.

Sundararajan et al. 2017, section 3. The path starts where the vectors of all words are zero; those
of special tokens and of positions stay. The scores of the words sum to what the words change.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minibert.errors import InputError
from minibert.inference.text_classifier import TextClassifier
from minibert.model.classifier import Classifier
from minibert.tasks.single_label import SingleLabel
from minibert.tasks.task import Task

STEPS = (32, 64, 128, 256)  # on the path; more if the sum is not exact enough
TOLERANCE = 0.01  # of the sum, relative to what the words change, or absolute if that is below 1
CHUNK = 1024  # tokens that are computed at once; their activations are in memory


@dataclass(frozen=True)
class WordScore:
    """A word of a text and what it adds to the prediction."""

    word: str
    start: int  # of the word in its text, in characters
    end: int
    in_pair: bool  # whether it is of the second text
    score: float


@dataclass(frozen=True)
class Attribution:
    """What the words of one text, or pair of texts, add to its prediction."""

    output: str  # the predicted class, the most probable one of several, or the first number
    base: float  # log-odds of the class, or the number, without the words
    value: float  # with them
    words: tuple[WordScore, ...]

    @property
    def error(self) -> float:
        """How far the sum of the scores is from `value` - `base`."""
        return abs(sum(word.score for word in self.words) - (self.value - self.base))


def attribute(
    classifier: TextClassifier,
    text: str,
    pair: str | None = None,
    *,
    task: Task | None = None,
    output: str | None = None,
    max_length: int | None = None,
) -> Attribution:
    """Return what each whole word adds to an output for a text, or pair of texts.

    `output` is the name of a class (default: the predicted one; of several labels, the most
    probable one) or of a number (default: the first).
    A class's score is that of its log-odds log(p / (1 - p)), with the temperature of `task`
    (default: the classifier's). The model ends in evaluation mode. Raises InputError for a text
    over `max_length` tokens (default: the model's).
    """
    model, task = classifier.model.eval(), task or classifier.task
    tokenized = classifier.tokenize(text, pair, max_length=max_length)
    if not tokenized.is_whole:
        longest = max_length or classifier.checkpoint.head.max_length
        raise InputError(f"has over {longest} tokens, and a text is explained as a whole")
    ids, _, types = classifier.dataset_of(tokenized).batch([0]).inputs
    assert ids is not None
    words = classifier.tokenizer.words(text, pair)
    assert len(words) == ids.shape[1]
    real = torch.tensor([word is not None for word in words])
    path = WordPath(model, task, ids, types, real)
    if output is not None:
        path.output = task.names.index(output)
    base, value = path.ends()
    for steps in STEPS:
        scores = path.integrate(steps)
        if abs(sum(scores) - (value - base)) <= TOLERANCE * max(1.0, abs(value - base)):
            break
    added: dict[tuple[int, int, int], float] = {}
    for word, score in zip(words, scores, strict=True):
        if word is not None:
            added[word] = added.get(word, 0.0) + score
    found = tuple(
        WordScore((text, pair or "")[which][start:end], start, end, which == 1, score)
        for (which, start, end), score in added.items()
    )
    return Attribution(task.names[path.output], base, value, found)


class WordPath:
    """The straight line from zero vectors to those of a text's words, and the output along it.

    Args:
        model: in evaluation mode.
        task: says what the logits mean.
        ids: (1, S).
        token_types: (1, S) or None.
        real: (S,), true at the tokens whose vectors change.
    """

    def __init__(
        self, model: Classifier, task: Task, ids: Tensor, token_types: Tensor | None, real: Tensor
    ) -> None:
        self.model, self.task, self.ids, self.token_types = model, task, ids, token_types
        self.real = real[:, None]  # (S, 1)
        with torch.no_grad():
            self.vectors = model.encoder.embeddings.word(ids[0])  # (S, D)
            self.output = self._predicted(model(ids, None, token_types))

    def ends(self) -> tuple[float, float]:
        """Return the output without the words and with them."""
        with torch.no_grad():
            base, value = self._outputs(self._points(torch.tensor([0.0, 1.0]))).tolist()
        return base, value

    def integrate(self, steps: int) -> list[float]:
        """Return the score of each token, by Gauss and Legendre's rule with so many steps."""
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        alphas, shares = (torch.from_numpy(x).float() for x in ((nodes + 1) / 2, weights / 2))
        gradient = torch.zeros_like(self.vectors)
        size = max(1, CHUNK // len(self.vectors))
        for chunk, share in zip(alphas.split(size), shares.split(size), strict=True):
            points = self._points(chunk).requires_grad_()
            (slopes,) = torch.autograd.grad(self._outputs(points).sum(), points)
            gradient += (slopes * share[:, None, None]).sum(dim=0)
        return (gradient * self.vectors * self.real).sum(dim=1).tolist()

    def _points(self, alphas: Tensor) -> Tensor:
        """Return word vectors (A, S, D) at these places (A,) of the path, from 0 to 1."""
        return torch.where(self.real, alphas[:, None, None] * self.vectors, self.vectors)

    def _outputs(self, points: Tensor) -> Tensor:
        """Return the output (A,) for word vectors (A, S, D), computed by the model itself."""
        word = self.model.encoder.embeddings.word
        hook = word.register_forward_hook(lambda *call: points)
        try:
            size = (len(points), self.ids.shape[1])
            types = None if self.token_types is None else self.token_types.expand(size)
            logits = self.model(self.ids.expand(size), None, types)
        finally:
            hook.remove()
        return self._log_odds(logits)

    def _log_odds(self, logits: Tensor) -> Tensor:
        """Return the log-odds (A,) of the explained class, or the explained number."""
        head = self.task.head
        scaled = logits / head.temperature
        chosen = scaled[:, self.output]
        if head.task != "single-label":
            return chosen
        others = [column for column in range(scaled.shape[1]) if column != self.output]
        return chosen - scaled[:, others].logsumexp(dim=1)

    def _predicted(self, logits: Tensor) -> int:
        """Return the column that is explained."""
        if isinstance(self.task, SingleLabel):
            return int(self.task.decide(logits)[0])
        return 0 if self.task.head.task == "regression" else int(logits[0].argmax())
