"""What the tests of tokenizers share: hard texts, ids and token types, small tokenizers."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from minibert.data.batches import TokenIds
from minibert.data.tokenizer import Tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
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
    "roberta's special tokens": "a <mask> b </s><s> c <MASK> < s > x<unk>y <pad>",
    "other scripts": "\u0915\u094d\u0937 \u0639\u0631\u0628 \u044f \u1e9e\u00df \ufb01 \u01c5",
    "longest word": "a" * 100 + " " + "a" * 101,
    "unknown": "\u2603 ##ing # # \u0416",
    "blank": " \t ",
    "empty": "",
}
# Any characters but lone surrogates, which no UTF-8 file can hold; and words that make pieces.
WORDS = st.sampled_from(
    ["hello", "Hello", "unwanted", "running", "café", *SPECIAL, "<pad>", "<s>", " ", "博"]
)
TEXTS = st.lists(
    st.one_of(WORDS, st.text(st.characters(exclude_categories=["Cs"]), max_size=12)), max_size=8
).map("".join)


def token_types(row: TokenIds) -> list[int]:
    return [0] * row.segment_b_start + [1] * (len(row) - row.segment_b_start)


def ids_and_types(
    tokenizer: Tokenizer, texts: Sequence[str], pairs: Sequence[str] | None = None
) -> list[tuple[list[int], list[int]]]:
    rows = tokenizer.encode(texts, pairs)
    return [(row.ids.tolist(), token_types(row)) for row in rows]


def reference_ids_and_types(
    reference: Any, texts: Sequence[str], pairs: Sequence[str] | None = None, **options: Any
) -> list[tuple[list[int], list[int]]]:
    # As a batch: a single empty second text would count as no second text.
    rows = reference(list(texts), None if pairs is None else list(pairs), **options)
    untyped = [[0] * len(ids) for ids in rows["input_ids"]]
    return list(zip(rows["input_ids"], rows.get("token_type_ids", untyped), strict=True))


# --- tokenizers of other families than BERT's, trained on a few words

SENTENCES = [
    "hello unwanted running café not a good film but a very good soup and a cold room"
] * 20
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def byte_level_bpe(folder: Path, settings: dict[str, Any] | None = None) -> Path:
    """Write a RoBERTa's vocab.json, merges.txt, and config.json."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=[*ROBERTA_SPECIAL, "<mask>"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    folder.mkdir(parents=True)
    backend.model.save(str(folder))
    return configured(folder, "roberta", settings)


def charsmap(replacements: dict[str, str]) -> bytes:
    """Return sentencepiece's precompiled_charsmap: a double array of ASCII keys, then values."""
    units, values = [0] * 512, b""
    for key, value in replacements.items():
        units[ord(key)] = ord(key) | 1 << 8 | 256 << 10  # it ends a key; its value is 256 away
        units[ord(key) + 256] = len(values) | 1 << 31
        values += value.encode() + b"\0"
    return struct.pack("<I512I", 4 * len(units), *units) + values


def unigram(folder: Path, family: str, class_name: str) -> Path:
    """Write a tokenizer.json as XLM-R, CamemBERT and multilingual-e5 have it."""
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.Precompiled(charsmap({"H": "h", "\t": " ", "$": "USD"}))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
        ]
    )
    backend.train_from_iterator(
        SENTENCES,
        trainers.UnigramTrainer(
            vocab_size=60,
            special_tokens=[*ROBERTA_SPECIAL, "<mask>"],
            unk_token="<unk>",
            show_progress=False,
        ),
    )
    ids = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s>:0 $A:0 </s>:0 </s>:0 $B:1 </s>:1",  # the class in transformers gives no types
        special_tokens=ids,
    )
    folder.mkdir(parents=True)
    backend.save(str(folder / "tokenizer.json"))
    names = {"cls": "<s>", "sep": "</s>", "bos": "<s>", "eos": "</s>", "unk": "<unk>"}
    tokens = {f"{name}_token": token for name, token in names.items()}
    tokens |= {"pad_token": "<pad>", "mask_token": "<mask>", "tokenizer_class": class_name}
    return configured(folder, family, tokens)


def configured(folder: Path, family: str, settings: dict[str, Any] | None) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
