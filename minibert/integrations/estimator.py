"""What the estimators of `scikit_learn` share: parameters, training, pickles."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from minibert.device import choose_compute
from minibert.errors import InputError
from minibert.inference.predictor import Predictor
from minibert.inference.text_classifier import TextClassifier
from minibert.model.config import LongTexts
from minibert.training.callback import Callback
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions
from minibert.training.progress import ProgressBar


def texts_and_pairs(X: Any) -> tuple[list[Any], list[Any] | None]:
    """Return the texts of a column (N,) or (N, 1), or the two texts of each row of (N, 2).

    Raises InputError for another shape.
    """
    table = np.asarray(X, dtype=object)
    if table.ndim == 1:
        return table.tolist(), None
    if table.ndim == 2 and table.shape[1] in (1, 2):
        texts, *pairs = table.T.tolist()
        return texts, pairs[0] if pairs else None
    raise InputError(f"X has the shape {table.shape}; give texts (N,) or pairs of texts (N, 2)")


def as_weights(sample_weight: Any, rows: int) -> np.ndarray:
    """Return the weight of each row (N,). Raises InputError for those that cannot be used."""
    given = np.ones(rows) if sample_weight is None else sample_weight
    weights = np.asarray(given, dtype=np.float32)
    if weights.shape != (rows,) or not (np.isfinite(weights) & (weights >= 0)).all():
        raise InputError(f"sample_weight must be {rows} numbers of 0 or more, one for each text")
    if not weights.any():
        raise InputError("sample_weight is 0 for all texts")
    return weights


class BertEstimator(BaseEstimator):
    """A model behind scikit-learn's interface.

    Its pickle has the files of a model folder in it: the weights are in model.safetensors.
    """

    classifier_: TextClassifier
    predictor_: Predictor

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = {**super().__getstate__()}
        if state.pop("predictor_", None):
            with tempfile.TemporaryDirectory() as folder:
                self.classifier_.save(folder)
                saved = [file for file in Path(folder).iterdir() if file.is_file()]
                files = {file.name: file.read_bytes() for file in saved}
            state["classifier_"] = files
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("classifier_", None)
        super().__setstate__(state)
        if files:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in files.items():
                    (Path(folder) / name).write_bytes(content)
                self.keep(TextClassifier.from_folder(Path(folder)))

    def keep(self, classifier: TextClassifier) -> None:
        """Set the fitted model, and a copy of it that is prepared for inference."""
        options = self._values("batch_size", "device", "precision")
        self.classifier_, self.predictor_ = classifier, Predictor(classifier, **options)

    def _values(self, *names: str) -> dict[str, Any]:
        """Return parameters by name. A search over an array gives numbers of numpy."""
        values = {name: getattr(self, name) for name in names}
        return {name: x.item() if isinstance(x, np.generic) else x for name, x in values.items()}

    def load(self, task: str, names: list[str], head: str, seed: int = 0) -> TextClassifier:
        """Return the pretrained encoder under a new head. It leaves torch's random state alone."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the seeds of GPUs stay too
            return TextClassifier.pretrained(
                self.model,
                names,
                task=task,
                head=head,
                pooling=self.pooling,
                **self._values("max_length"),
                long_texts=LongTexts(self.long_texts),
            )


class TrainedEstimator(BertEstimator):
    """An estimator that trains on labels."""

    def __init__(
        self,
        model: str = "distilbert-base-uncased",
        *,
        head: str = "mlp",
        pooling: str = "cls",
        max_length: int = 128,
        long_texts: str = "cut",
        epochs: int = 3,
        batch_size: int = 32,
        encoder_lr: float = 2e-5,
        head_lr: float = 1e-4,
        freeze: bool = False,
        freeze_layers: int = 0,
        validation_fraction: float = 0.0,
        random_state: Any = None,
        device: str = "auto",
        precision: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.head = head
        self.pooling = pooling
        self.max_length = max_length
        self.long_texts = long_texts
        self.epochs = epochs
        self.batch_size = batch_size
        self.encoder_lr = encoder_lr
        self.head_lr = head_lr
        self.freeze = freeze
        self.freeze_layers = freeze_layers
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.verbose = verbose

    def train(
        self, task: str, names: list[str], X: Any, labels: list[Any], sample_weight: Any
    ) -> None:
        """Train on the rows with a weight above 0, or keep the best epoch on some of them."""
        texts, pairs = texts_and_pairs(X)
        if len(texts) != len(labels):
            raise InputError(f"X has {len(texts)} rows and y {len(labels)}; give one y for each")
        seed = int(check_random_state(self.random_state).randint(2**31))
        of_training = ("epochs", "batch_size", "encoder_lr", "head_lr", "freeze", "freeze_layers")
        options = TrainingOptions(**self._values(*of_training), seed=seed)
        weights = as_weights(sample_weight, len(texts))
        rows = np.flatnonzero(weights)
        validation = rows[: self.batch_size]  # chooses nothing
        if self.validation_fraction:
            rows, validation = train_test_split(
                rows,
                test_size=self.validation_fraction,
                random_state=seed,
                stratify=[labels[row] for row in rows] if task == "single-label" else None,
            )
        classifier = self.load(task, names, self.head, seed)
        train, unseen = (
            classifier.dataset(
                [texts[row] for row in chosen],
                [labels[row] for row in chosen],
                None if pairs is None else [pairs[row] for row in chosen],
            )
            for chosen in (rows, validation)
        )
        result = fit(
            classifier.model,
            train,
            unseen,
            options,
            compute=choose_compute(self.device, self.precision),
            callback=ProgressBar() if self.verbose else Callback(),
            keep_best=bool(self.validation_fraction),
            sample_weight=weights[rows],
        )
        self.keep(classifier)
        self.loss_curve_ = [epoch.train_loss for epoch in result.history]
        self.n_iter_ = len(self.loss_curve_)
