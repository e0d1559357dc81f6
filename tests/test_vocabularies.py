"""Tokenizers other than BERT's have the ids of transformers: byte-level BPE and Unigram.

They are trained here on a few words. Run: pytest tests/test_vocabularies.py
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_config
from hypothesis import given, settings
from tokens import (
    SPECIAL,
    TEXTS,
    TRICKY,
    byte_level_bpe,
    configured,
    ids_and_types,
    reference_ids_and_types,
    unigram,
)

from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError

MASK = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False}
MASK |= {"single_word": False, "normalized": False}  # as slow tokenizers wrote it
SOURCES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "roberta": ("roberta", byte_level_bpe),
    "roberta, a space before each text": (
        "roberta",
        lambda folder: byte_level_bpe(folder, {"add_prefix_space": True}),
    ),
    "roberta, a mask that takes spaces": (
        "roberta",
        lambda folder: byte_level_bpe(folder, {"mask_token": MASK}),
    ),
    "xlm-roberta": (
        "xlm-roberta",
        lambda folder: unigram(folder, "xlm-roberta", "XLMRobertaTokenizerFast"),
    ),
    "camembert": ("camembert", lambda folder: unigram(folder, "camembert", "CamembertTokenizer")),
    "multilingual-e5": ("bert", lambda folder: unigram(folder, "bert", "XLMRobertaTokenizer")),
}


def read(folder: Path, family: str) -> Tokenizer:
    # multilingual-e5's config.json says 0, the id of <s>, where its tokenizer has 1.
    pad = 0 if family == "bert" else 1
    config = tiny_config(family, vocab_size=400, pad_token_id=pad, positions=60)
    return Tokenizer.from_folder(folder, config)


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=SOURCES)
def source(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Return a family, and a folder with a tokenizer as published checkpoints have it."""
    family, write = SOURCES[request.param]
    return family, write(tmp_path_factory.mktemp("tokenizers") / "source")


@pytest.fixture(scope="module", params=["source", "saved by transformers", "saved by minibert"])
def both(
    request: pytest.FixtureRequest,
    source: tuple[str, Path],
    transformers: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Tokenizer, Any]:
    """Return minibert's tokenizer of a folder, and transformers' of the source."""
    family, folder = source
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    if request.param != "source":
        saved = tmp_path_factory.mktemp("tokenizers")
        if request.param == "saved by transformers":
            reference.save_pretrained(saved)
        else:
            read(folder, family).save(saved)
        configured(saved, family, None)
        folder = saved
    return read(folder, family), reference


def test_tricky_texts_and_pairs_have_the_ids_of_transformers(both: tuple[Tokenizer, Any]) -> None:
    tokenizer, reference = both
    texts = list(TRICKY.values())
    for name, text in TRICKY.items():
        found, expected = (
            ids_and_types(tokenizer, [text]),
            reference_ids_and_types(reference, [text]),
        )
        assert found == expected, name
    expected = reference_ids_and_types(reference, texts, texts[::-1])
    assert ids_and_types(tokenizer, texts, texts[::-1]) == expected


def test_each_token_is_of_a_text_or_special(both: tuple[Tokenizer, Any]) -> None:
    tokenizer, _ = both
    texts = [text for text in TRICKY.values() if text]
    special = set(tokenizer.encode([""])[0].ids.tolist())
    single = zip(tokenizer.encode(texts), tokenizer.owners(texts), strict=True)
    alone = [row.ids[owner == 0].tolist() for row, owner in single]
    rows, owners = tokenizer.encode(texts, texts[::-1]), tokenizer.owners(texts, texts[::-1])
    for row, owner, first, second in zip(rows, owners, alone, alone[::-1], strict=True):
        assert row.ids[owner == 0].tolist() == first and row.ids[owner == 1].tolist() == second
        assert {*row.ids[owner == -1].tolist()} == special
        assert (np.diff(owner[owner >= 0]) >= 0).all()


def test_each_kind_has_its_own_ids(tmp_path: Path) -> None:
    """Without this, the comparison above could pass with a map of characters that is ignored."""

    tokenizers = {
        name: read(write(tmp_path / name), family) for name, (family, write) in SOURCES.items()
    }

    def ids(name: str, text: str) -> list[int]:
        return tokenizers[name].encode([text])[0].ids.tolist()

    assert ids("xlm-roberta", "Hello\tHello") == ids("xlm-roberta", "hello hello")
    assert ids("roberta", "hello") != ids("roberta", " hello")
    prefixed = "roberta, a space before each text"
    assert ids(prefixed, "hello") == ids(prefixed, " hello") == ids("roberta", " hello")


@settings(max_examples=40, deadline=None)
@given(first=TEXTS, second=TEXTS)
def test_any_text_has_the_ids_of_transformers(
    both: tuple[Tokenizer, Any], first: str, second: str
) -> None:
    tokenizer, reference = both
    for pairs in (None, [second]):
        expected = reference_ids_and_types(reference, [first], pairs)
        assert ids_and_types(tokenizer, [first], pairs) == expected


def test_transformers_computes_the_same_ids_from_a_saved_folder(
    source: tuple[str, Path], transformers: Any, tmp_path: Path
) -> None:
    family, folder = source
    tokenizer = read(folder, family)
    tokenizer.save(tmp_path, wordpiece_class=None)
    configured(tmp_path, family, None)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = list(TRICKY.values())
    for pairs in (None, texts[::-1]):
        expected = ids_and_types(tokenizer, texts, pairs)
        assert reference_ids_and_types(reference, texts, pairs) == expected
    special = {name: getattr(reference, f"{name}_token") for name in ("cls", "sep", "pad", "mask")}
    assert special == {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "mask": "<mask>"}
    assert "token_type_ids" not in reference(["a"], ["b"])


# --- files that do not fit each other


def test_without_merges_a_vocabulary_is_no_tokenizer(tmp_path: Path) -> None:
    folder = byte_level_bpe(tmp_path / "source")
    (folder / "merges.txt").unlink()
    with pytest.raises(InputError, match=r"holds no tokenizer .*no vocab\.json with merges\.txt"):
        read(folder, "roberta")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("merges.txt", "#version: 0.2\nnowhere else\n", "does not fit merges.txt"),
        ("merges.txt", "#version: 0.2\none\n", "does not fit merges.txt"),
        ("vocab.json", "{}", "does not fit merges.txt"),
        ("vocab.json", "[]", "does not fit merges.txt"),
        ("vocab.json", "{", "does not fit merges.txt"),
        ("tokenizer_config.json", '{"add_prefix_space": 1}', "add_prefix_space must be true"),
        ("tokenizer_config.json", '{"cls_token": "<cls>"}', "lacks the special tokens <cls>"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    name: str, content: str, problem: str, tmp_path: Path
) -> None:
    folder = byte_level_bpe(tmp_path / "source")
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=problem):
        read(folder, "roberta")


def test_ids_of_vocab_json_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    folder = byte_level_bpe(tmp_path / "source")
    vocabulary = json.loads((folder / "vocab.json").read_text())
    for value in ("0", -1, 1.5, 10**12):
        (folder / "vocab.json").write_text(json.dumps(vocabulary | {"<s>": value}))
        with pytest.raises(InputError, match=r"vocab\.json: "):
            read(folder, "roberta")


def test_a_warning_tells_that_the_files_disagree_on_the_space_before_each_text(
    tmp_path: Path,
) -> None:
    folder = byte_level_bpe(tmp_path / "source")
    read(folder, "roberta").save(folder)
    stated = '{"add_prefix_space": true, "tokenizer_class": "RobertaTokenizer"}'
    (folder / "tokenizer_config.json").write_text(stated)
    with pytest.warns(UserWarning, match="add_prefix_space: False in tokenizer.json, True in"):
        tokenizer = read(folder, "roberta")
    tokenizer.save(folder)
    assert json.loads((folder / "tokenizer_config.json").read_text())["add_prefix_space"] is False


# --- tokens that were added to a vocabulary

ADDED = ["covid", "<user>", "#tag", "Hello"]  # <user> is special; Hello is in case as it is written
ADDED_TEXTS = [
    *("the covid film", "<user> said covid-19", "x<user>y", "covids", "#tag#tag", "COVID <USER>"),
    *("hello Hello", " covid ", "a #tag, b"),
]


def extended(folder: Path, kind: str, form: str) -> Path:
    """Write a tokenizer whose last tokens were added, as transformers 4 and older ones do."""
    if kind == "bert":
        folder.mkdir()
        tokens = [*SPECIAL, *"acdefhilmosuvxy19-<>#,", *(f"##{x}" for x in "acdefhilmosuvxy19")]
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
        size = len(tokens)
    else:
        byte_level_bpe(folder)
        size = len(json.loads((folder / "vocab.json").read_text()))
    numbers = {token: size + n for n, token in enumerate(ADDED)}
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    settings: dict[str, Any] = {"additional_special_tokens": ["<user>"]}
    if form == "added_tokens.json":
        (folder / form).write_text(json.dumps(numbers))
        user = {"__type": "AddedToken", "content": "<user>", "normalized": False, **flags}
        settings["additional_special_tokens"] = [user]
    else:
        settings[form] = {
            n: {"content": x, **flags, "normalized": x != "<user>", "special": x == "<user>"}
            for x, n in numbers.items()
        }
    return configured(folder, kind, settings)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("form", ["added_tokens.json", "added_tokens_decoder"])
def test_added_tokens_are_those_of_transformers(tmp_path, transformers, kind, form):
    folder = extended(tmp_path / "source", kind, form)
    tokenizer = read(folder, kind)
    expected = reference_ids_and_types(
        transformers.AutoTokenizer.from_pretrained(folder), ADDED_TEXTS
    )
    assert ids_and_types(tokenizer, ADDED_TEXTS) == expected
    used = {number for ids, _ in expected for number in ids}
    assert {tokenizer.backend.token_to_id(token) for token in ADDED} <= used

    tokenizer.save(tmp_path)
    configured(tmp_path, kind, None)
    assert ids_and_types(read(tmp_path, kind), ADDED_TEXTS) == expected
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert reference_ids_and_types(saved, ADDED_TEXTS) == expected


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        ({"covid": 399}, "the added token 'covid' has the id 399, and the vocabulary gives it"),
        ({"covid": "many"}, "its added tokens cannot be read; fetch it again"),
        (["covid"], ""),
    ],
)
def test_added_tokens_that_do_not_fit_are_refused(tmp_path, added, problem):
    folder = byte_level_bpe(tmp_path / "source")
    (folder / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(InputError, match=rf"added_tokens\.json: {problem}"):
        read(folder, "roberta")
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    with pytest.raises(InputError, match=r"tokenizer_config\.json: its added tokens cannot be"):
        read(folder, "roberta")
