"""The tokenizers of older checkpoints, which have no tokenizer.json but files of tokens.

The references are transformers' tokenization_bert.py and tokenization_roberta.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, WordPiece

from minibert.data.tokenizer_config import SPECIAL_TOKENS, normalizer_switches, special_token
from minibert.errors import InputError, printable
from minibert.files import model_file, read_json

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")  # of an added token
ROBERTA_TOKENS = ("<unk>", "</s>", "<pad>", "<s>", "<mask>")  # in the order of SPECIAL_TOKENS


def wordpiece(file: Path, settings: Mapping[str, Any]) -> Backend:
    """Build BERT's tokenizer from one token a line, and the switches of tokenizer_config.json."""
    try:
        with open(file, encoding="utf-8", newline="\n") as lines:
            vocabulary = {line.rstrip("\r\n"): number for number, line in enumerate(lines)}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as UTF-8 ({error})") from None
    special = _special_tokens(
        settings, [f"[{name.upper()}]" for name in SPECIAL_TOKENS], vocabulary, file
    )
    backend = Backend(WordPiece(vocabulary, unk_token=special["unk"]))
    backend.add_special_tokens(list(special.values()))
    switches = normalizer_switches(settings)
    try:
        backend.normalizer = normalizers.BertNormalizer(clean_text=True, **switches)
    except TypeError:
        raise InputError(
            f"{file.parent / 'tokenizer_config.json'}: do_lower_case, strip_accents and "
            "tokenize_chinese_chars must be true or false"
        ) from None
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = special["cls"], special["sep"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    backend.decoder = decoders.WordPiece()
    return backend


def byte_level_bpe(file: Path, merges: Path, settings: Mapping[str, Any]) -> Backend:
    """Build RoBERTa's tokenizer from vocab.json and merges.txt (Radford et al. 2019)."""
    try:
        backend = Backend(BPE.from_file(str(file), str(merges)))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{file}: does not fit {merges.name} ({error})") from None
    vocabulary = backend.get_vocab()
    special = _special_tokens(settings, ROBERTA_TOKENS, vocabulary, file)
    backend.add_special_tokens(
        [
            AddedToken(token, lstrip=_strips_spaces(settings.get(f"{name}_token")))
            for name, token in special.items()
        ]
    )
    prefix_space = settings.get("add_prefix_space", False)
    if not isinstance(prefix_space, bool):
        raise InputError(
            f"{file.parent / 'tokenizer_config.json'}: add_prefix_space must be true or false"
        )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    cls, sep = special["cls"], special["sep"]
    backend.post_processor = processors.RobertaProcessing(
        (sep, vocabulary[sep]), (cls, vocabulary[cls]), add_prefix_space=prefix_space
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def add_tokens(backend: Backend, folder: Path, settings: Mapping[str, Any]) -> None:
    """Add the tokens by which a vocabulary was extended, which are never split.

    transformers writes them into `added_tokens_decoder` of tokenizer_config.json, and before
    version 4.34 into added_tokens.json. Raises InputError if one gets another id here.
    """
    stated, older = settings.get("added_tokens_decoder"), model_file(folder, "added_tokens.json")
    file = folder / "tokenizer_config.json" if stated or not older else older
    try:
        if stated:
            tokens = {
                int(number): AddedToken(**{x: entry[x] for x in ("content", *FLAGS) if x in entry})
                for number, entry in stated.items()
            }
        else:
            named = settings.get("additional_special_tokens") or []
            special = [x for x in named if isinstance(x, str)]  # as transformers, which skips dicts
            ids = read_json(older) if older else {}
            tokens = {int(n): AddedToken(x, special=x in special) for x, n in ids.items()}
            known = backend.get_vocab()
            tokens |= {known[x]: AddedToken(x, special=True) for x in special if x in known}
    except (AttributeError, TypeError, ValueError):
        raise InputError(f"{file}: its added tokens cannot be read; fetch it again") from None
    there = {token.content for token in backend.get_added_tokens_decoder().values()}
    for number, token in sorted(tokens.items(), key=lambda item: item[0]):
        if token.content not in there:
            backend.add_tokens([token])
        if (found := backend.token_to_id(token.content)) != number:
            raise InputError(
                f"{file}: the added token {printable(token.content, 40)!r} has the id {number}, "
                f"and the vocabulary gives it {found}; the two are not of one model"
            )


def _special_tokens(
    settings: Mapping[str, Any],
    defaults: Sequence[str],
    vocabulary: Mapping[str, Any],
    file: Path,
) -> dict[str, str]:
    """Return the special tokens by name. Raises InputError if the vocabulary lacks one."""
    special = {
        name: special_token(settings, name) or default
        for name, default in zip(SPECIAL_TOKENS, defaults, strict=True)
    }
    missing = [token for token in special.values() if token not in vocabulary]
    if missing:
        raise InputError(f"{file}: lacks the special tokens {', '.join(missing)}")
    return special


def _strips_spaces(stored: Any) -> bool:
    """Return whether a special token of tokenizer_config.json takes the spaces before it."""
    return isinstance(stored, dict) and stored.get("lstrip") is True
