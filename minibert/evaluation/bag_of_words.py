"""The cheap baseline: a linear model on how often words and pairs of neighbouring words occur.

scikit-learn is imported inside the functions that use it: it adds a second to every start.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Chinese and Japanese have no spaces between words: each character is one, as BERT's tokenizer
# treats the Chinese ones. A punctuation mark is a word, too.
CHARACTER = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
WORD = re.compile(rf"[{CHARACTER}]|[^\W{CHARACTER}]+|[^\w\s]")
FEATURES = 50_000  # most frequent words and pairs
C = 10.0  # inverse regularization; the best of 1, 3, 10, 30 or near it on six validation splits
OUTPUTS = 300  # most classes or numbers; each has a model of its own
CHARACTERS = 20_000_000  # of training text that are read
WORK = 200_000_000  # characters times outputs


@dataclass(frozen=True)
class BagOfWords:
    """TF-IDF weights of words and pairs of words, and a linear model of them."""

    vectorizer: Any
    weights: np.ndarray  # (F, C)
    bias: np.ndarray  # (C,)
    kind: str  # of task
    rows: int  # that it was fitted on

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return (N, C): log-probabilities of classes, logits of several classes, or numbers."""
        scores = self.vectorizer.transform(texts) @ self.weights + self.bias
        # For one class per text the sigmoids are normalized, as scikit-learn's one-vs-rest does.
        return -np.logaddexp(0, -scores) if self.kind == "single-label" else scores


def fit_bag_of_words(texts: Sequence[str], targets: np.ndarray, kind: str) -> BagOfWords:
    """Fit logistic regressions, one class against the rest, or for kind "regression" ridge's.

    `targets` are 0 and 1, or numbers: (N, C). C is at most OUTPUTS. If the texts are long or many,
    it is fitted on some of them, drawn at random: see CHARACTERS and WORK.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    rows = _some_rows(texts, min(CHARACTERS, WORK // targets.shape[1]))
    targets = targets[rows]
    vectorizer = TfidfVectorizer(
        analyzer=words_and_pairs, sublinear_tf=True, max_features=FEATURES, dtype=np.float32
    )
    counts = vectorizer.fit_transform([texts[row] for row in rows])
    if kind == "regression":
        ridge = Ridge().fit(counts, targets)
        weights = ridge.coef_.reshape(targets.shape[1], -1).T  # one number has no axis for it
        return BagOfWords(vectorizer, weights, ridge.intercept_, kind, len(rows))
    # Of two classes, the first's model is the second's with the other sign.
    two = kind == "single-label" and targets.shape[1] == 2
    columns = targets.T[1:] if two else targets.T
    models = [_logistic_regression(counts, column) for column in columns]
    weights = np.stack([weights for weights, _ in models], axis=1)
    bias = np.array([bias for _, bias in models])
    if two:
        weights, bias = np.hstack([-weights, weights]), np.append(-bias, bias)
    return BagOfWords(vectorizer, weights, bias, kind, len(rows))


def words_and_pairs(text: str) -> list[str]:
    """Return the words of a text and its pairs of neighbouring words, in lower case."""
    words = WORD.findall(text.lower())
    return [*words, *(f"{one} {two}" for one, two in itertools.pairwise(words))]


def _some_rows(texts: Sequence[str], characters: int) -> np.ndarray:
    """Return all rows, or as many random ones as have so many characters together, and one more."""
    lengths = np.array([len(text) for text in texts])
    if lengths.sum() <= characters:
        return np.arange(len(texts))
    rows = np.random.default_rng(0).permutation(len(texts))
    taken = 1 + int(np.searchsorted(np.cumsum(lengths[rows]), characters))
    return np.sort(rows[:taken])


def _logistic_regression(counts: Any, column: np.ndarray) -> tuple[np.ndarray, float]:
    """Return weights (F,) and bias of one class against the rest, fitted to 0 and 1 (N,)."""
    from sklearn.linear_model import LogisticRegression

    positive = int(column.sum())
    if positive in (0, len(column)):  # nothing to separate
        negative = len(column) - positive
        return np.zeros(counts.shape[1]), float(np.log((positive + 1) / (negative + 1)))
    model = LogisticRegression(C=C, solver="liblinear", tol=0.01).fit(counts, column)
    return model.coef_[0], float(model.intercept_[0])
