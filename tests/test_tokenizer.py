"""Token ids and token types are those of transformers' BertTokenizer, from either kind of file.

Published ids are checked without transformers; all else is compared with it where it is installed.
The real vocabularies are used where ../shared/checkpoints or the package of MiniLM has them.

Run: pytest tests/test_tokenizer.py
"""

import importlib.util
import json
import shutil
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import SHARED, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError
from minibert.hub import MINILM_PACKAGE

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
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
TRICKY = {
    "case": "hello Hello HELLO hELLo",
    "accents": "UNwant\u00e9d,running caf\u00e9 na\u00efve \u00c5ngstr\u00f6m \u0130stanbul",
    "combining accents": "cafe\u0301 e\u0301\u0323 A\u030a",
    "chinese": "ah\u535a\u63a8zz \u535ahello\u63a8 \u3042\u30a2 \ud55c\uae00",
    "control characters": "a\x00b\x07c\x1fd\ufffde \x7f\u0085",
    "format characters": "un\u00adwant\u00aded zero\u200bwidth\u200djoin \ufeffbom \u202ertl",
    "spaces": " \tHeLLo!how  \n Are yoU?\r\n\u00a0a\u2003b\u2028c\u3000d",
    "punctuation": "don't!? $5-10 `a` \u00bfqu\u00e9? a_b ^ ~ \u2013 \u300c\u3002\u300d \u00a7",
    "emoji": "good \U0001f600\U0001f44d\U0001f3fd film \u263a\ufe0f",
    "special tokens": "a [MASK] b [SEP][CLS] c [mask] [ SEP ] [unused1] x[UNK]y [PAD]",
    "other scripts": "\u0915\u094d\u0937 \u0639\u0631\u0628 \u044f \u1e9e\u00df \ufb01 \u01c5",
    "longest word": "a" * 100 + " " + "a" * 101,
    "unknown": "\u2603 ##ing # # \u0416",
    "blank": " \t ",
    "empty": "",
}
# Any characters but lone surrogates, which no UTF-8 file can hold; and words that make pieces.
WORDS = st.sampled_from(["hello", "Hello", "unwanted", "running", "café", *SPECIAL, " ", "博"])
TEXTS = st.lists(
    st.one_of(WORDS, st.text(st.characters(exclude_categories=["Cs"]), max_size=12)), max_size=8
).map("".join)


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


def read(folder: Path, vocab_size: int = 200_000) -> Tokenizer:
    return Tokenizer.from_folder(folder, tiny_config("bert", vocab_size=vocab_size))


def ids_and_types(
    tokenizer: Tokenizer, texts: Sequence[str], pairs: Sequence[str] | None = None
) -> list[tuple[list[int], list[int]]]:
    rows = tokenizer.encode(texts, pairs)
    return [(row.ids.tolist(), [0] * row.second + [1] * (len(row) - row.second)) for row in rows]


def reference_ids_and_types(
    reference: Any, texts: Sequence[str], pairs: Sequence[str] | None = None, **options: Any
) -> list[tuple[list[int], list[int]]]:
    # As a batch: alone, an empty second text would be taken for none.
    rows = reference(list(texts), None if pairs is None else list(pairs), **options)
    return list(zip(rows["input_ids"], rows["token_type_ids"], strict=True))


# --- published ids, which need no transformers


def test_ids_of_googles_test(tmp_path: Path) -> None:
    # google-research/bert tokenization_test.py; transformers tests/models/bert
    tokens = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "want", "##want", "##ed", "wa", "un"]
    folder = write_vocabulary(tmp_path, [*tokens, "runn", "##ing", ",", "low", "lowest"])
    (row,) = read(folder).encode(["UNwant\u00e9d,running"])
    assert row.ids.tolist() == [1, 9, 6, 7, 12, 10, 11, 2]
    assert row.ids.dtype == "int32"
    assert len(row) == row.second == 8


def real_folders() -> list[Any]:
    """The folders with the vocabulary of bert-base-uncased that this machine has."""
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
    """Return our tokenizer and the reference for a kind of file and a set of options."""
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
def test_tricky_texts_and_pairs(tiny: Callable[..., Any], files: str, options: str) -> None:
    tokenizer, reference = tiny(files, options)
    texts = list(TRICKY.values())
    for name, text in TRICKY.items():
        expected = reference_ids_and_types(reference, [text])
        assert ids_and_types(tokenizer, [text]) == expected, name
    expected = reference_ids_and_types(reference, texts, texts[::-1])
    assert ids_and_types(tokenizer, texts, texts[::-1]) == expected


def test_the_options_change_the_ids(tiny: Callable[..., Any]) -> None:
    """So that the comparisons above prove something: each option has a text it matters to."""

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
def test_any_text_with_a_tiny_vocabulary(
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
    """Our tokenizers, from each kind of file there is, and the reference."""
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
    # From tokenizer.json where there is one: it alone says which tokens were never to be split.
    return ours, transformers.BertTokenizer.from_pretrained(config.parent)


def test_tricky_texts_with_real_vocabularies(real: tuple[list[Tokenizer], Any]) -> None:
    ours, reference = real
    texts = list(TRICKY.values())
    for tokenizer in ours:
        expected = reference_ids_and_types(reference, texts, texts[::-1])
        assert ids_and_types(tokenizer, texts, texts[::-1]) == expected


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_any_text_with_real_vocabularies(
    real: tuple[list[Tokenizer], Any], texts: list[str]
) -> None:
    ours, reference = real
    expected = reference_ids_and_types(reference, texts)
    for tokenizer in ours:
        assert ids_and_types(tokenizer, texts) == expected


# --- truncation and padding


@pytest.fixture
def baked(tmp_path: Path) -> Path:
    """A folder whose tokenizer.json cuts at 4 tokens and pads to 6, as all-MiniLM-L6-v2's does."""
    backend = read(write_vocabulary(tmp_path / "plain")).backend
    backend.enable_truncation(4)
    backend.enable_padding(length=6)
    (tmp_path / "baked").mkdir()
    backend.save(str(tmp_path / "baked" / "tokenizer.json"))
    return tmp_path / "baked"


def test_truncation_and_padding_of_the_file_are_off(baked: Path, tmp_path: Path) -> None:
    rows = read(baked).encode(["hello", "hello " * 20])
    assert [len(row) for row in rows] == [3, 22]
    saved = tmp_path / "saved"
    saved.mkdir()
    read(baked).save(saved)
    written = json.loads((saved / "tokenizer.json").read_text())
    assert written["truncation"] is None and written["padding"] is None


def test_truncate_counts_and_changes_only_the_long_rows(tmp_path: Path) -> None:
    tokenizer = read(write_vocabulary(tmp_path))
    texts = ["hello", "hello a b", "hello a b c", "hello " * 30]
    rows = tokenizer.encode(texts)
    before = [row.ids.tolist() for row in rows]
    assert tokenizer.truncate(rows, texts, max_length=5) == 2
    assert [row.ids.tolist() for row in rows[:2]] == before[:2]
    for row, whole in zip(rows[2:], before[2:], strict=True):
        assert row.ids.tolist() == [*whole[:4], whole[-1]]  # [SEP] stays at the end
    assert tokenizer.truncate(rows, texts, max_length=5) == 0
    assert len(tokenizer.encode(texts)[3]) == 32  # nothing of it stays switched on


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 14), st.integers(1, 14)), min_size=1, max_size=5),
    max_length=st.integers(3, 20),
    paired=st.booleans(),
)
def test_truncate_is_transformers_longest_first(
    tiny: Callable[..., Any], sizes: list[tuple[int, int]], max_length: int, paired: bool
) -> None:
    tokenizer, reference = tiny("vocab.txt", "uncased")
    texts = [" ".join(string.ascii_lowercase[:first]) for first, _ in sizes]
    pairs = [" ".join(string.digits[:second]) for _, second in sizes] if paired else None
    rows = tokenizer.encode(texts, pairs)
    long = sum(len(row) > max_length for row in rows)
    assert tokenizer.truncate(rows, texts, pairs, max_length=max_length) == long
    expected = reference_ids_and_types(
        reference, texts, pairs, truncation="longest_first", max_length=max_length
    )
    found = [(row.ids.tolist(), [0] * row.second + [1] * (len(row) - row.second)) for row in rows]
    assert found == expected


# --- files that do not fit


def test_no_tokenizer_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no tokenizer \(no tokenizer.json, no vocab.txt\)"):
        read(tmp_path)


@pytest.mark.parametrize("files", ["vocab.txt", "tokenizer.json"])
def test_more_tokens_than_the_model_has_is_an_input_error(files: str, tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path)
    if files == "tokenizer.json":
        read(folder).save(folder)
    read(folder, vocab_size=len(TOKENS))
    with pytest.raises(InputError, match=f"{files}: has {len(TOKENS)} tokens, config.json only"):
        read(folder, vocab_size=len(TOKENS) - 1)


def test_an_id_past_the_model_is_an_input_error(tmp_path: Path) -> None:
    """A word that stands twice takes two ids and one entry: counting entries is not enough."""
    folder = write_vocabulary(tmp_path, [*TOKENS, "hello", "last"])
    with pytest.raises(InputError, match=r"vocab.txt: has"):
        read(folder, vocab_size=len(TOKENS) + 1)


def edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Write a tokenizer.json beside a vocabulary, and change it."""
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
        (lambda data: data["model"].update(unk_token="[?]"), "lacks its own token for unknown"),
    ],
    ids=["an id past the model", "a third token type", "no [CLS]", "no [UNK]"],
)
def test_what_every_text_gets_is_checked_at_once(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], problem: str
) -> None:
    folder = edited(tmp_path, edit)
    with pytest.raises(InputError, match=rf"tokenizer\.json: {problem}"):
        read(folder)


def test_a_length_without_room_for_the_special_tokens_is_refused(tmp_path: Path) -> None:
    tokenizer = read(write_vocabulary(tmp_path))
    rows = tokenizer.encode(["hello"], ["hello"])
    with pytest.raises(InputError, match="--max-length is 2; 3 are special tokens alone"):
        tokenizer.truncate(rows, ["hello"], ["hello"], max_length=2)


@pytest.mark.parametrize("token", SPECIAL)
def test_a_missing_special_token_is_named(token: str, tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path, [other for other in TOKENS if other != token])
    with pytest.raises(InputError) as caught:
        read(folder)
    assert f"vocab.txt: lacks the special tokens {token}" in str(caught.value)


def test_renamed_special_tokens(tmp_path: Path) -> None:
    tokens = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "a"]
    names = dict(zip(("pad_token", "unk_token", "cls_token"), tokens[:3], strict=True))
    old_form = {"__type": "AddedToken", "content": "</s>", "lstrip": False}
    options = {**names, "sep_token": old_form, "mask_token": {"content": "<mask>"}}
    tokenizer = read(write_vocabulary(tmp_path, tokens, options))
    assert tokenizer.encode(["a <mask> b"])[0].ids.tolist() == [2, 5, 4, 1, 3]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"model": null}'])
def test_a_file_that_is_no_tokenizer_is_an_input_error(content: bytes, tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path)
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match=r"tokenizer\.json: is not a tokenizer"):
        read(folder)


def test_a_vocabulary_that_is_not_utf8_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes("\n".join([*SPECIAL, "café"]).encode("latin-1"))
    with pytest.raises(InputError, match=r"vocab\.txt: cannot be read as UTF-8"):
        read(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_tokenizer_config_is_an_input_error(content: str, tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path)
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(InputError, match=r"tokenizer_config\.json: "):
        read(folder)


@pytest.mark.parametrize("option", ["do_lower_case", "strip_accents", "tokenize_chinese_chars"])
def test_an_option_that_is_no_boolean_is_an_input_error(option: str, tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path, options={option: "yes"})
    with pytest.raises(InputError, match=rf"tokenizer_config\.json: .*{option}"):
        read(folder)


def test_windows_line_ends_and_a_last_line_without_end(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(TOKENS).encode())
    tokenizer = read(tmp_path, vocab_size=len(TOKENS))
    plain = read(write_vocabulary(tmp_path / "plain"))
    texts = list(TRICKY.values())
    assert ids_and_types(tokenizer, texts) == ids_and_types(plain, texts)


# --- saved for transformers


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("files", ["vocab.txt", "tokenizer.json", "tokenizer.json alone"])
def test_transformers_opens_what_is_saved(
    transformers: Any, files: str, options: str, family: str, tmp_path: Path
) -> None:
    folder = write_vocabulary(tmp_path / "source", options=OPTIONS[options])
    if files != "vocab.txt":
        read(folder).save(folder)
        (folder / "vocab.txt").unlink()
    if files == "tokenizer.json alone":
        (folder / "tokenizer_config.json").unlink()
    tokenizer = read(folder)
    saved = tmp_path / "saved"
    saved.mkdir()
    tokenizer.save(saved)
    (saved / "config.json").write_text(json.dumps(tiny_config(family).to_json()))
    reference = transformers.AutoTokenizer.from_pretrained(saved)
    texts = list(TRICKY.values())
    expected = [reference(text)["input_ids"] for text in texts]
    assert [row.ids.tolist() for row in tokenizer.encode(texts)] == expected
    assert [row.ids.tolist() for row in read(saved).encode(texts)] == expected
