"""minibert: text classifiers from BERT, RoBERTa and ELECTRA checkpoints, in plain PyTorch.

The public names are loaded when they are used, so that importing minibert is cheap.

Example:
    >>> import minibert
    >>> texts, labels = ["good film", "bad soup", "great fun", "awful plot"], ["pos", "neg"] * 2
    >>> classifier = minibert.TextClassifier.pretrained("all-MiniLM-L6-v2", ["neg", "pos"])
    >>> data = classifier.dataset(texts, labels)
    >>> options = minibert.TrainingOptions(epochs=2, encoder_lr=1e-4, head_lr=1e-3)
    >>> result = minibert.fit(classifier.model, data, data, options)  # a TrainResult
    >>> len(result.history)
    2
    >>> predictor = minibert.Predictor(classifier)
    >>> predictor.predict_proba(["a lovely film"]).shape
    (1, 2)
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULES = {
    "load": "inference.predictor",
    "Predictor": "inference.predictor",
    "TextClassifier": "inference.text_classifier",
    "BatchPredictor": "integrations.batch_predictor",
    "BertClassifier": "integrations.scikit_learn",
    "BertRegressor": "integrations.scikit_learn",
    "BertFeatures": "integrations.scikit_learn",
    "fit": "training.loop",
    "fit_logistic": "training.logistic",
    "Callback": "training.callback",
    "TrainResult": "training.state",
    "TrainingOptions": "training.options",
    "LongTexts": "model.config",
    "ProgressBar": "training.progress",
    "check_data": "data.check",
    "DataOptions": "data.options",
    "load_encoder": "inference.text_classifier",
    "Encoder": "model.encoder",
    "Tokenizer": "data.tokenizer",
    "choose_compute": "device",
    "InputError": "errors",
}
__all__ = list(_MODULES)

if TYPE_CHECKING:
    from minibert.data.check import check_data as check_data
    from minibert.data.options import DataOptions as DataOptions
    from minibert.data.tokenizer import Tokenizer as Tokenizer
    from minibert.device import choose_compute as choose_compute
    from minibert.errors import InputError as InputError
    from minibert.inference.predictor import Predictor as Predictor
    from minibert.inference.predictor import load as load
    from minibert.inference.text_classifier import TextClassifier as TextClassifier
    from minibert.inference.text_classifier import load_encoder as load_encoder
    from minibert.integrations.batch_predictor import BatchPredictor as BatchPredictor
    from minibert.integrations.scikit_learn import BertClassifier as BertClassifier
    from minibert.integrations.scikit_learn import BertFeatures as BertFeatures
    from minibert.integrations.scikit_learn import BertRegressor as BertRegressor
    from minibert.model.config import LongTexts as LongTexts
    from minibert.model.encoder import Encoder as Encoder
    from minibert.training.callback import Callback as Callback
    from minibert.training.logistic import fit_logistic as fit_logistic
    from minibert.training.loop import fit as fit
    from minibert.training.options import TrainingOptions as TrainingOptions
    from minibert.training.progress import ProgressBar as ProgressBar
    from minibert.training.state import TrainResult as TrainResult


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'minibert' has no attribute {name!r}")
    return getattr(importlib.import_module(f"minibert.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
