#!/usr/bin/env python3
"""Makes tiny tokenizers of the translation models and records what transformers answers for them.

One folder a case under translation/: the files a published model has, and expected.json with rows of
{"text", "src"?, "tgt"?, "ids", "decoded", "skipped"} and {"codes", "errors"}. The SentencePiece models are trained here, on sentences put
together from a few words, with a character map of a few rules.

    make_translation_tokenizers.py --out Tests/Fixtures/translation

Needs transformers, sentencepiece, protobuf, tokenizers; sacremoses must not be installed.
"""
import argparse
import itertools
import json
import os
import shutil
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import sentencepiece
import transformers
import transformers.models.m2m_100.tokenization_m2m_100
import transformers.models.nllb.tokenization_nllb
from transformers import (
    M2M100Tokenizer, MarianTokenizer, MBart50Tokenizer, MBartTokenizer, NllbTokenizer, XGLMTokenizer)
from transformers.convert_slow_tokenizer import NllbConverter, SentencePieceExtractor

transformers.logging.set_verbosity_error()

WORDS = {
    "en": (["the house", "a river", "my neighbour", "every garden"], ["keeps", "follows", "remembers", "waters"],
           ["old trees", "the morning light", "a quiet street", "seven stones"]),
    "ko": (["작은 집이", "강물이", "이웃이", "아침마다 우리는"], ["오래된", "조용한", "따뜻한", "먼"], ["나무를 봅니다", "길을 걷습니다", "빛을 기억합니다", "돌을 셉니다"]),
    "de": (["das Haus", "ein Fluss", "der Nachbar", "jeder Garten"], ["behält", "begleitet", "erinnert", "gießt"],
           ["alte Bäume", "das Morgenlicht", "eine stille Straße", "sieben Steine"]),
}
SENTENCES = [" ".join(words) + "." for parts in WORDS.values() for words in itertools.product(*parts)]
# Full width and wide spaces, a ligature, a pair that differs from its parts.
RULES = [("FF21", "41"), ("FF42", "62"), ("3000", "20"), ("A0", "20"), ("9", "20"), ("FB01", "66 69"), ("2126 301", "3A9 301"),
         ("2126", "3A9")]
TEXTS = ["the house keeps old trees.", "작은 집이 조용한 길을 걷습니다.", "  two  spaces and a tab\tin  between  ", "", " ",
         "das Haus gießt ＡＢｂ ﬁ Ω\u0301 Ω", "unknown 漢字 and 😀😀 signs", "a\u3000wide\u00a0space", "line\nbreak", "▁mark ▁ of its own",
         "</s> a special token <unk> in a text</s>", "a river follows a quiet street"]
CODES = {"m2m": ["__ko__", "__en__ __xx__ x"], "nllb": ["kor_Hang", " kor_Hang kor_Han"], "mbart": ["ko_KR en_XX", "<mask> it"],
         "marian": [">>kor<< the house", ">>xyz<< the house", "the >>kor<< house", ">>no end"], "xglm": ["<madeupword3> x"]}


def train(prefix, kind, size, **options):
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/text", "w") as file:
            file.write("\n".join(SENTENCES))
        with open(f"{folder}/rules.tsv", "w") as file:
            file.writelines(f"{a}\t{b}\n" for a, b in RULES)
        sentencepiece.SentencePieceTrainer.train(
            input=f"{folder}/text", model_prefix=prefix, vocab_size=size, model_type=kind, minloglevel=2, hard_vocab_limit=False,
            **{"normalization_rule_tsv": f"{folder}/rules.tsv", **options})
        os.remove(prefix + ".vocab")


def pieces(model):
    processor = sentencepiece.SentencePieceProcessor(model_file=model)
    return [processor.id_to_piece(i) for i in range(len(processor))]


def fresh(*parts):
    folder = os.path.join(*parts)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return folder


def write(path, value):
    with open(path, "w") as file:
        json.dump(value, file, ensure_ascii=False, indent=0)


def record(folder, kind, tokenizer, languages, targets=()):
    rows = []
    for language in languages:
        if language is not None:
            tokenizer.src_lang = language
        for text in TEXTS + CODES[kind] if language == languages[0] else TEXTS[:2]:
            ids = tokenizer(text)["input_ids"]
            row = {"text": text, "ids": ids, "decoded": tokenizer.decode(ids), "skipped": tokenizer.decode(ids, skip_special_tokens=True)}
            rows.append({"src": language, **row} if language is not None else row)
    for source, target in targets:
        inputs = tokenizer._build_translation_inputs(TEXTS[0], return_tensors=None, src_lang=source, tgt_lang=target) if kind != "m2m" \
            else tokenizer._build_translation_inputs(TEXTS[0], src_lang=source, tgt_lang=target)
        rows.append({"text": TEXTS[0], "src": source, "tgt": target, "ids": inputs["input_ids"],
                     "forced_bos_token_id": inputs["forced_bos_token_id"]})
    write(f"{folder}/expected.json", {"length": len(tokenizer), "rows": rows})
    print(os.path.basename(folder), type(tokenizer).__name__, len(tokenizer), len(rows))


def fairseq_vocabulary(model):
    """What Fairseq's dictionary holds: four tokens, the pieces but a few that never occurred, and text that is no piece."""
    own = pieces(model)[3:]
    return {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>"] + own[:-5] + ["漢字"])}


def m2m100(out, codes, kind):
    folder = fresh(out, f"m2m100_{codes}" if codes != "m2m100" else f"m2m100_{kind}")
    train(f"{folder}/sentencepiece.bpe", kind, 170)
    write(f"{folder}/vocab.json", fairseq_vocabulary(f"{folder}/sentencepiece.bpe.model"))
    write(f"{folder}/tokenizer_config.json", {
        "tokenizer_class": "M2M100Tokenizer", "language_codes": codes, "model_max_length": 1024, "src_lang": None, "tgt_lang": None,
        "num_madeup_words": 8})
    every = transformers.models.m2m_100.tokenization_m2m_100.FAIRSEQ_LANGUAGE_CODES[codes]
    write(f"{folder}/special_tokens_map.json", {
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
        "additional_special_tokens": [f"__{code}__" for code in every]})
    names = ["en", "ko", "de"] if codes == "m2m100" else ["en", "de"]
    record(folder, "m2m", M2M100Tokenizer.from_pretrained(folder), names, [("en", names[1]), ("de", "en")])


def made(cls, folder, config):
    """From the parts that the converters of transformers make of the SentencePiece model; NLLB and XGLM no longer read it themselves."""
    parts = SentencePieceExtractor(f"{folder}/sentencepiece.bpe.model").extract(cls.model)
    parts.pop("additional_special_tokens")
    if cls is NllbTokenizer:
        codes = config.pop("codes", transformers.models.nllb.tokenization_nllb.FAIRSEQ_LANGUAGE_CODES)
        parts = NllbConverter.convert_from_spm(**parts)
        for text in codes + ["<mask>"]:
            parts["vocab"][text] = len(parts["vocab"])
        parts["additional_special_tokens"] = codes
        return cls(**parts, **config)
    first = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    parts["vocab"] = first + parts["vocab"][3:] + [(f"<madeupword{i}>", 0.0) for i in range(7)]
    parts.pop("unk_id")
    return cls(**parts, **config)


def fairseq(out, name, cls, kind, languages, config=None, save=False):
    folder = fresh(out, name)
    config = config or {}
    train(f"{folder}/sentencepiece.bpe", kind, 170)
    write(f"{folder}/tokenizer_config.json", {
        "tokenizer_class": cls.__name__, "model_max_length": 1024, **{k: v for k, v in config.items() if k != "codes"}})
    tokenizer = made(cls, folder, config) if cls in (NllbTokenizer, XGLMTokenizer) else cls.from_pretrained(folder)
    if save:
        os.remove(f"{folder}/sentencepiece.bpe.model")
        tokenizer.save_pretrained(folder)
        with open(f"{folder}/tokenizer.json") as file:
            content = json.load(file)
        # As the published file has it, whatever the class does later.
        content["post_processor"]["single"] = content["post_processor"]["single"][1:] + content["post_processor"]["single"][:1]
        write(f"{folder}/tokenizer.json", content)
        tokenizer = cls.from_pretrained(folder)
    kinds = {"MBartTokenizer": "mbart", "MBart50Tokenizer": "mbart", "NllbTokenizer": "nllb", "XGLMTokenizer": "xglm"}
    record(folder, kinds[cls.__name__], tokenizer, languages, [(languages[0], languages[1])] if languages[0] else [])


def marian(out, name):
    folder = fresh(out, name)
    train(f"{folder}/source", "unigram", 130)
    os.rename(f"{folder}/source.model", f"{folder}/source.spm")
    train(f"{folder}/target", "unigram", 140, normalization_rule_name="identity", normalization_rule_tsv="")
    os.rename(f"{folder}/target.model", f"{folder}/target.spm")
    source, target = pieces(f"{folder}/source.spm")[3:], pieces(f"{folder}/target.spm")[3:]
    every = list(dict.fromkeys(["</s>", "<unk>"] + source[:-4] + target + [">>kor<<", ">>deu<<", "<pad>"]))
    write(f"{folder}/vocab.json", {p: i for i, p in enumerate(every)})
    write(f"{folder}/tokenizer_config.json", {
        "tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "mul", "model_max_length": 512})
    record(folder, "marian", MarianTokenizer.from_pretrained(folder), [None])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    out = parser.parse_args().out
    m2m100(out, "m2m100", "bpe")
    m2m100(out, "m2m100", "unigram")
    m2m100(out, "wmt21", "unigram")
    fairseq(out, "nllb", NllbTokenizer, "bpe", ["eng_Latn", "kor_Hang"])
    fairseq(out, "nllb_json", NllbTokenizer, "bpe", ["eng_Latn", "kor_Hang"],
            {"codes": ["deu_Latn", "eng_Latn", "kor_Hang", "zho_Hans"]}, save=True)
    fairseq(out, "nllb_legacy", NllbTokenizer, "bpe", ["kor_Hang", "eng_Latn"], {"legacy_behaviour": True, "src_lang": "kor_Hang"})
    fairseq(out, "mbart50", MBart50Tokenizer, "unigram", ["en_XX", "ko_KR"])
    fairseq(out, "mbart_cc25", MBartTokenizer, "unigram", ["en_XX", "ko_KR"])
    fairseq(out, "xglm", XGLMTokenizer, "unigram", [None])
    marian(out, "marian")
