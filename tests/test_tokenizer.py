"""Token ids and token types equal those of transformers' BertTokenizer, from either kind of file.

Published ids are checked without transformers; everything else is compared with it if installed.
Real vocabularies are used if ../shared/checkpoints or the package of MiniLM has them.

Run: pytest tests/test_tokenizer.py
"""

import copy
import importlib.util
import json
import pickle
import shutil
import string
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import SHARED, tiny_config, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from tokens import SPECIAL, TEXTS, TRICKY, ids_and_types, reference_ids_and_types, token_types

from minibert.checkpoint.families import FAMILIES
from minibert.data.long_texts import shorten
from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError
from minibert.hub import MINILM_PACKAGE
from minibert.inference.text_classifier import TextClassifier
from minibert.model.config import LongTexts

# Cased and uncased words, an accent, pieces, punctuation, a Chinese character and an emoji.
LETTERS = [*string.ascii_letters, *string.digits, *"é博推😀한हя"]
TOKENS = [
    *SPECIAL,
    *("hello", "Hello", "want", "##want", "##ed", "un", "runn", "##ing", "cafe", "café"),
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    *string.punctuation,
    *"¿。–",
]


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers")


def write_vocabulary(
    folder: Path, tokens: Sequence[str] = TOKENS, options: dict[str, Any] | None = None
) -> Path:
    """Write a vocab.txt, and with options a tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    if options is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(options))
    return folder


def read(folder: Path, vocab_size: int = 200_000, family: str = "bert") -> Tokenizer:
    return Tokenizer.from_folder(folder, tiny_config(family, vocab_size=vocab_size))


# --- published ids, without transformers


def test_ids_of_googles_test(tmp_path: Path) -> None:
    # google-research/bert tokenization_test.py; transformers tests/models/bert
    tokens = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "want", "##want", "##ed", "wa", "un"]
    folder = write_vocabulary(tmp_path, [*tokens, "runn", "##ing", ",", "low", "lowest"])
    (row,) = read(folder).encode(["UNwant\u00e9d,running"])
    assert row.ids.tolist() == [1, 9, 6, 7, 12, 10, 11, 2]
    assert row.ids.dtype == "int32"
    assert len(row) == row.segment_b_start == 8


def real_folders() -> list[Any]:
    """The folders of this machine with the vocabulary of bert-base-uncased."""
    package = importlib.util.find_spec(MINILM_PACKAGE)
    folders = {
        "shared": SHARED / "checkpoints" / "bert-base-uncased",
        "MiniLM": Path(package.origin).parent / "model" if package and package.origin else None,
    }
    missing = pytest.mark.skip(reason="not on this machine")
    return [
        pytest.param(folder, id=name, marks=() if folder and folder.is_dir() else missing)
        for name, folder in folders.items()
    ]


@pytest.mark.parametrize("folder", real_folders())
@pytest.mark.parametrize("files", ["tokenizer.json", "vocab.txt"])
def test_published_ids_of_bert_base_uncased(folder: Path, files: str, tmp_path: Path) -> None:
    shutil.copy(folder / files, tmp_path)
    tokenizer = read(tmp_path, vocab_size=30522)
    pair = ids_and_types(tokenizer, ["My name is John"], ["pair"])
    # tokenizers' test_bert_wordpiece.py
    assert pair == [([101, 2026, 2171, 2003, 2198, 102, 3940, 102], [0, 0, 0, 0, 0, 0, 1, 1])]
    # Hugging Face's course, chapter 2
    (course,) = tokenizer.encode(["I've been waiting for a HuggingFace course my whole life."])
    expected = "101 1045 1005 2310 2042 3403 2005 1037 17662 12172 2607 2026 2878 2166 1012 102"
    assert course.ids.tolist() == [int(number) for number in expected.split()]


# --- a tiny vocabulary, against transformers

OPTIONS: dict[str, dict[str, Any] | None] = {
    "no tokenizer_config": None,
    "uncased": {"do_lower_case": True},
    "cased": {"do_lower_case": False},
    "uncased, accents kept": {"do_lower_case": True, "strip_accents": False},
    "cased, accents stripped": {"do_lower_case": False, "strip_accents": True},
    "chinese not split": {"do_lower_case": True, "tokenize_chinese_chars": False},
    "nulls as in older files": {"do_lower_case": True, "strip_accents": None, "never_split": None},
}


@pytest.fixture(scope="module")
def tiny(
    transformers: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], tuple[Tokenizer, Any]]:
    """Return our tokenizer and the reference, for a kind of file and a set of options."""
    known: dict[tuple[str, str], tuple[Tokenizer, Any]] = {}

    def both(files: str, options: str) -> tuple[Tokenizer, Any]:
        if (files, options) not in known:
            place = tmp_path_factory.mktemp("tiny")
            folder = write_vocabulary(place / "vocab", options=OPTIONS[options])
            reference = transformers.BertTokenizer.from_pretrained(folder)
            if files == "tokenizer.json":
                folder = place / "full"
                reference.save_pretrained(folder)
                assert not (folder / "vocab.txt").exists()
            known[files, options] = read(folder, vocab_size=len(TOKENS)), reference
        return known[files, options]

    return both


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("files", ["vocab.txt", "tokenizer.json"])
def test_tricky_texts_and_pairs_have_the_ids_of_transformers(
    tiny: Callable[..., Any], files: str, options: str
) -> None:
    tokenizer, reference = tiny(files, options)
    texts = list(TRICKY.values())
    for name, text in TRICKY.items():
        expected = reference_ids_and_types(reference, [text])
        assert ids_and_types(tokenizer, [text]) == expected, name
    expected = reference_ids_and_types(reference, texts, texts[::-1])
    assert ids_and_types(tokenizer, texts, texts[::-1]) == expected


def test_each_option_changes_the_ids_of_some_text(tiny: Callable[..., Any]) -> None:
    """Without this, the comparisons above could pass with an option that is ignored."""

    def tokens(options: str, text: str) -> list[str]:
        row = tiny("vocab.txt", options)[0].encode([text])[0]
        return [TOKENS[number] for number in row.ids[1:-1]]

    assert tokens("uncased", "Hello café") == ["hello", "cafe"]
    assert tokens("cased", "Hello café") == ["Hello", "café"]
    assert tokens("uncased, accents kept", "Hello café") == ["hello", "café"]
    assert tokens("cased, accents stripped", "Hello café") == ["Hello", "cafe"]
    assert tokens("uncased", "a博b") == ["a", "博", "b"]
    assert tokens("chinese not split", "a博b") == ["a", "##博", "##b"]
    assert tokens("uncased", "un\u00adwanted") == ["un", "##want", "##ed"]
    assert tokens("uncased", "x[MASK]y [un]") == ["x", "[MASK]", "y", "[", "un", "]"]


@settings(max_examples=60, deadline=None)
@given(
    files=st.sampled_from(["vocab.txt", "tokenizer.json"]),
    options=st.sampled_from(sorted(OPTIONS)),
    texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4),
)
def test_any_text_has_the_ids_of_transformers_with_a_tiny_vocabulary(
    tiny: Callable[..., Any], files: str, options: str, texts: list[tuple[str, str]]
) -> None:
    tokenizer, reference = tiny(files, options)
    first, second = map(list, zip(*texts, strict=True))
    assert ids_and_types(tokenizer, first) == reference_ids_and_types(reference, first)
    expected = reference_ids_and_types(reference, first, second)
    assert ids_and_types(tokenizer, first, second) == expected


# --- the real vocabularies, against transformers

REAL = {
    "bert-base-uncased": {"do_lower_case": True},
    "bert-base-cased": {"do_lower_case": False},
    "bert-base-multilingual-cased": {"do_lower_case": False},
}


@pytest.fixture(scope="module", params=REAL)
def real(
    request: pytest.FixtureRequest, transformers: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Tokenizer], Any]:
    """Return our tokenizers, one for each kind of file, and the reference."""
    source = SHARED / "checkpoints" / request.param
    if not source.is_dir():
        pytest.skip("the shared checkpoints are not on this machine")
    ours = []
    place = tmp_path_factory.mktemp("real")
    for name in ("vocab.txt", "tokenizer.json"):
        if (source / name).is_file():
            (place / name).mkdir()
            shutil.copyfile(source / name, place / name / name)
            config = place / name / "tokenizer_config.json"
            config.write_text(json.dumps(REAL[request.param]))
            ours.append(read(place / name))
    # From tokenizer.json if there is one: only it lists the tokens that are never split.
    return ours, transformers.BertTokenizer.from_pretrained(config.parent)


def test_tricky_texts_have_the_ids_of_transformers_with_real_vocabularies(
    real: tuple[list[Tokenizer], Any],
) -> None:
    ours, reference = real
    texts = list(TRICKY.values())
    for tokenizer in ours:
        expected = reference_ids_and_types(reference, texts, texts[::-1])
        assert ids_and_types(tokenizer, texts, texts[::-1]) == expected


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_any_text_has_the_ids_of_transformers_with_real_vocabularies(
    real: tuple[list[Tokenizer], Any], texts: list[str]
) -> None:
    ours, reference = real
    expected = reference_ids_and_types(reference, texts)
    for tokenizer in ours:
        assert ids_and_types(tokenizer, texts) == expected


# --- truncation and padding


@pytest.fixture
def baked(tmp_path: Path) -> Path:
    """A folder whose tokenizer.json cuts at 4 tokens and pads to 6; all-MiniLM-L6-v2 has such."""
    backend = read(write_vocabulary(tmp_path / "plain")).backend
    backend.enable_truncation(4)
    backend.enable_padding(length=6)
    (tmp_path / "baked").mkdir()
    backend.save(str(tmp_path / "baked" / "tokenizer.json"))
    return tmp_path / "baked"


def test_truncation_and_padding_in_the_file_are_switched_off(baked: Path, tmp_path: Path) -> None:
    rows = read(baked).encode(["hello", "hello " * 20])
    assert [len(row) for row in rows] == [3, 22]
    saved = tmp_path / "saved"
    saved.mkdir()
    read(baked).save(saved)
    written = json.loads((saved / "tokenizer.json").read_text())
    assert written["truncation"] is None and written["padding"] is None


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 14), st.integers(1, 14)), min_size=1, max_size=5),
    max_length=st.integers(3, 20),
    paired=st.booleans(),
)
def test_cut_texts_equal_longest_first_of_transformers(
    tiny: Callable[..., Any], sizes: list[tuple[int, int]], max_length: int, paired: bool
) -> None:
    tokenizer, reference = tiny("vocab.txt", "uncased")
    texts = [" ".join(string.ascii_lowercase[:first]) for first, _ in sizes]
    pairs = [" ".join(string.digits[:second]) for _, second in sizes] if paired else None
    rows = tokenizer.encode(texts, pairs)
    found = shorten(tokenizer, rows, texts, pairs, max_length=max_length, long_texts=LongTexts())
    assert found.lengths.tolist() == [len(row) for row in rows]
    assert found.lost.tolist() == [max(0, len(row) - max_length) for row in rows]
    expected = reference_ids_and_types(
        reference, texts, pairs, truncation="longest_first", max_length=max_length
    )
    assert [(row.ids.tolist(), token_types(row)) for row in found.rows] == expected


def test_a_tokenizer_can_be_copied_and_pickled(tmp_path: Path) -> None:
    tokenizer = read(write_vocabulary(tmp_path))
    for other in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert ids_and_types(other, ["hello a"]) == ids_and_types(tokenizer, ["hello a"])


# --- files that do not fit the model or are damaged


def test_a_folder_without_a_tokenizer_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no tokenizer"):
        read(tmp_path)


@pytest.mark.parametrize("files", ["vocab.txt", "tokenizer.json"])
def test_more_tokens_than_the_model_has_raise(files: str, tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path)
    if files == "tokenizer.json":
        read(folder).save(folder)
    read(folder, vocab_size=len(TOKENS))
    with pytest.raises(InputError, match=f"{files}: has {len(TOKENS)} tokens, config.json only"):
        read(folder, vocab_size=len(TOKENS) - 1)


def test_an_id_that_the_model_does_not_have_raises(tmp_path: Path) -> None:
    """A word that is listed twice takes two ids but is one entry, so counting is not enough."""
    folder = write_vocabulary(tmp_path, [*TOKENS, "hello", "last"])
    with pytest.raises(InputError, match=r"vocab.txt: has"):
        read(folder, vocab_size=len(TOKENS) + 1)


def edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Write a tokenizer.json beside a vocabulary, and edit it."""
    read(write_vocabulary(folder)).save(folder)
    data = json.loads((folder / "tokenizer.json").read_text())
    edit(data)
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return folder


FRAME = "adds special tokens that config.json's .* do not have"


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda data: data["post_processor"]["special_tokens"]["[CLS]"].update(ids=[10**6]), FRAME),
        (lambda data: data["post_processor"]["pair"][-1]["SpecialToken"].update(type_id=7), FRAME),
        (lambda data: data.update(post_processor=None), "adds 0 special tokens"),
        (lambda data: data["model"].update(unk_token="[?]"), "lacks its token for unknown"),
    ],
    ids=["an unknown id", "a third token type", "no [CLS]", "no [UNK]"],
)
def test_special_tokens_that_do_not_fit_the_model_raise_when_it_is_read(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], problem: str
) -> None:
    folder = edited(tmp_path, edit)
    with pytest.raises(InputError, match=rf"tokenizer\.json: {problem}"):
        read(folder)


@pytest.mark.parametrize("token", SPECIAL)
def test_a_missing_special_token_raises_with_its_name(token: str, tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path, [other for other in TOKENS if other != token])
    with pytest.raises(InputError) as caught:
        read(folder)
    assert f"vocab.txt: lacks the special tokens {token}" in str(caught.value)


def test_renamed_special_tokens_are_read_from_tokenizer_config(tmp_path: Path) -> None:
    tokens = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "a"]
    names = dict(zip(("pad_token", "unk_token", "cls_token"), tokens[:3], strict=True))
    old_form = {"__type": "AddedToken", "content": "</s>", "lstrip": False}
    options = {**names, "sep_token": old_form, "mask_token": {"content": "<mask>"}}
    tokenizer = read(write_vocabulary(tmp_path, tokens, options))
    assert tokenizer.encode(["a <mask> b"])[0].ids.tolist() == [2, 5, 4, 1, 3]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"model": null}'])
def test_a_file_that_is_not_a_tokenizer_raises(content: bytes, tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path)
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match=r"tokenizer\.json: is not a tokenizer"):
        read(folder)


def test_a_vocabulary_that_is_not_utf8_raises(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes("\n".join([*SPECIAL, "café"]).encode("latin-1"))
    with pytest.raises(InputError, match=r"vocab\.txt: cannot be read as UTF-8"):
        read(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]"])
@pytest.mark.parametrize("files", ["vocab.txt", "tokenizer.json"])
def test_a_broken_tokenizer_config_raises(content: str, files: str, tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path)
    if files == "tokenizer.json":
        read(folder).save(folder)
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(InputError, match=r"tokenizer_config\.json: "):
        read(folder)


@pytest.mark.parametrize("option", ["do_lower_case", "strip_accents", "tokenize_chinese_chars"])
def test_an_option_that_is_not_a_boolean_raises(option: str, tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path, options={option: "yes"})
    with pytest.raises(InputError, match=rf"tokenizer_config\.json: .*{option}"):
        read(folder)


def test_windows_line_ends_and_an_unfinished_last_line_are_read(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(TOKENS).encode())
    tokenizer = read(tmp_path, vocab_size=len(TOKENS))
    plain = read(write_vocabulary(tmp_path / "plain"))
    texts = list(TRICKY.values())
    assert ids_and_types(tokenizer, texts) == ids_and_types(plain, texts)


# --- saved for transformers

GENERIC = "PreTrainedTokenizerFast"
CLASSES = {  # of BERT's tokenizer
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "roberta": GENERIC,
    "electra": "BertTokenizer",
}


def save(tokenizer: Tokenizer, folder: Path, family: str = "bert") -> dict[str, Any]:
    """Save a tokenizer as a run does; return its tokenizer_config.json."""
    write_checkpoint(folder, family)
    (folder / "vocab.txt").unlink()
    tokenizer.save(folder, wordpiece_class=FAMILIES[family].wordpiece_class)
    return dict(json.loads((folder / "tokenizer_config.json").read_text()))


def assert_transformers_agrees(
    transformers: Any, tokenizer: Tokenizer, saved: Path, family: str = "bert"
) -> None:
    """Ids and token types of a saved folder are equal here, there and before it was saved."""
    reference = transformers.AutoTokenizer.from_pretrained(saved)
    texts = list(TRICKY.values())
    for pairs in (None, texts[::-1]):
        expected = ids_and_types(tokenizer, texts, pairs)
        assert reference_ids_and_types(reference, texts, pairs) == expected
        assert ids_and_types(read(saved, family=family), texts, pairs) == expected


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("files", ["vocab.txt", "tokenizer.json", "tokenizer.json alone"])
def test_transformers_computes_the_same_ids_from_a_saved_folder(
    transformers: Any, files: str, options: str, family: str, tmp_path: Path
) -> None:
    folder = write_vocabulary(tmp_path / "source", options=OPTIONS[options])
    if files != "vocab.txt":
        read(folder).save(folder)
        (folder / "vocab.txt").unlink()
    if files == "tokenizer.json alone":
        (folder / "tokenizer_config.json").unlink()
    tokenizer = read(folder, family=family)
    settings = save(tokenizer, tmp_path / "saved", family)
    assert settings["tokenizer_class"] == CLASSES[family]
    assert_transformers_agrees(transformers, tokenizer, tmp_path / "saved", family)


def test_a_saved_classifier_has_the_tokenizer_class_of_its_family(
    family: str, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "model", family)
    TextClassifier.pretrained(str(folder), ["a", "b"], max_length=9).save(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == CLASSES[family]


@pytest.mark.parametrize("stated", [{}, {"do_lower_case": True}, {"strip_accents": True}])
def test_a_saved_folder_states_the_switches_of_tokenizer_json(
    transformers: Any, stated: dict[str, bool], tmp_path: Path
) -> None:
    """A cased tokenizer.json beside a tokenizer_config.json that says otherwise, or nothing."""
    folder = write_vocabulary(tmp_path / "source", options={"do_lower_case": False})
    read(folder).save(folder)
    config = {"model_max_length": 512, **stated}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match=r"source: its files disagree \(.*in tokenizer.json, True"):
        tokenizer = read(folder)
    settings = save(tokenizer, tmp_path / "saved")
    assert settings["model_max_length"] == 512
    assert (settings["do_lower_case"], settings["strip_accents"]) == (False, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tmp_path / "saved")
    assert_transformers_agrees(transformers, tokenizer, tmp_path / "saved")


@pytest.mark.parametrize(
    "config",
    [
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": False},
        {"tokenizer_class": "PreTrainedTokenizerFast"},  # reads only tokenizer.json
    ],
)
def test_files_that_agree_cause_no_warning(config: dict[str, Any], tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path, options={"do_lower_case": False})
    read(folder).save(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(folder)


def test_the_warning_names_the_switch_and_both_files(tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path / "source", options={"do_lower_case": False})
    read(folder).save(folder)
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.warns(UserWarning) as caught:
        read(folder)
    assert [str(warning.message) for warning in caught] == [
        f"{folder}: its files disagree (do_lower_case: False in tokenizer.json, True by default in "
        "tokenizer_config.json); minibert uses tokenizer.json"
    ]


def test_a_cased_multilingual_tokenizer_is_saved_for_transformers(
    transformers: Any, tmp_path: Path
) -> None:
    source = SHARED / "checkpoints" / "bert-base-multilingual-cased" / "tokenizer.json"
    if not source.is_file():
        pytest.skip("the shared checkpoints are not on this machine")
    folder = tmp_path / "source"
    folder.mkdir()
    shutil.copyfile(source, folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    with pytest.warns(UserWarning, match="do_lower_case: False in tokenizer.json, True by default"):
        tokenizer = read(folder)
    save(tokenizer, tmp_path / "saved")
    assert_transformers_agrees(transformers, tokenizer, tmp_path / "saved")


def test_renamed_special_tokens_are_saved(transformers: Any, tmp_path: Path) -> None:
    """From tokenizer.json alone: [CLS], [SEP] and [UNK] are those that it uses."""
    names = {"cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
    tokens = [*TOKENS, *names.values()]
    folder = write_vocabulary(tmp_path / "source", tokens, {**names, "do_lower_case": False})
    read(folder).save(folder)
    (folder / "tokenizer_config.json").unlink()
    tokenizer = read(folder)
    settings = save(tokenizer, tmp_path / "saved")
    assert {name: settings[name] for name in names} == names
    assert_transformers_agrees(transformers, tokenizer, tmp_path / "saved")


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data.update(normalizer={"type": "Lowercase"}),
        lambda data: data["normalizer"].update(clean_text=False),
        lambda data: data["model"].update(continuing_subword_prefix="@@"),
        lambda data: data.update(pre_tokenizer={"type": "Whitespace"}),
    ],
    ids=["another normalizer", "texts not cleaned", "other pieces", "other words"],
)
def test_a_tokenizer_that_is_not_bert_s_is_saved_under_the_generic_class(
    transformers: Any, edit: Callable[[dict[str, Any]], object], family: str, tmp_path: Path
) -> None:
    """BertTokenizer would ignore what differs; the generic class reads all of tokenizer.json."""
    tokenizer = read(edited(tmp_path / "source", edit), family=family)
    settings = save(tokenizer, tmp_path / "saved", family)
    assert settings["tokenizer_class"] == GENERIC
    assert ("token_type_ids" in settings["model_input_names"]) == (family in ("bert", "electra"))
    assert_transformers_agrees(transformers, tokenizer, tmp_path / "saved", family)
