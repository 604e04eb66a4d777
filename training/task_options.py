"""Settings that one kind of task has and the others have not: on the command line `--task.NAME`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .attention import Attention


@dataclass(frozen=True)
class NoOptions:
    pass


@dataclass(frozen=True)
class StoryOptions:
    """Of questions about stories."""

    row_steps: int = 0  # stories are read end to end in rows of so many steps, so that every batch mixes tasks of all
    # lengths; the state begins anew with each story; 0 = one story a row, batches of about equal length


@dataclass(frozen=True)
class LanguageOptions:
    """Of language models."""

    steps: int = 35  # tokens that gradients reach back; the state goes on beyond them
    restart: float = 0.02  # share of rows whose state begins anew at each update, or models may never learn to begin
    tied: bool = True  # the vectors of tokens are also those that tell the next one (Press and Wolf 2017)
    dropout: float = 0.0  # of the features, before the next token is told


@dataclass(frozen=True)
class TranslateOptions:
    """Of translation."""

    hidden: int = 128  # units of the decoder
    embedding: int = 32  # width of a symbol's learned vector
    attention: Attention = "additive"  # additive (Bahdanau et al. 2015), or dot (Luong et al. 2015, "general")
    beam: int = 4  # sequences that are followed at once in the last judgement, beside the greedy search


@dataclass(frozen=True)
class ParseOptions:
    """Of parsing."""

    hidden: int = 128  # units of the net that scores transitions
    beam: int = 8  # parses that are followed at once
    local_share: float = 0.5  # of the updates that learn single transitions before whole parses; 1 = all of them


@dataclass(frozen=True)
class TaggingOptions:
    """Of tagging words."""

    words: int = 100  # width of a word's learned vector; 0 = none
    characters: int = 30  # filters over the characters of a word (Ma and Hovy 2016); 0 = none
    tags: int = 0  # width of the vector of a given part of speech, where chunks are asked for; 0 = it is not read
    window: int = 0  # words to each side that are put end to end: a tagger whose encoder has no memory needs them
    crf: bool = False  # tags of a sentence are told together, by a conditional random field
    dropout: float = 0.5  # of what the encoder reads, and of its features
    word_dropout: float = 0.02  # share of words that are read as unknown ones while training


Pool = Literal["last", "mean", "max"]


@dataclass(frozen=True)
class ReviewOptions:
    """Of naming the class of a whole sequence."""

    pool: Pool = "last"  # the features that are judged: those of the last step, or the mean or largest of all steps


@dataclass(frozen=True)
class Word2VecOptions:
    """Of word vectors. The defaults are gensim's, but for the text and the noise that is shared."""

    model: Literal["skip-gram", "cbow"] = "skip-gram"  # a word tells its context; or the context the word, which
    # learns best at rates of about 0.15
    loss: Literal["negative-sampling", "nce"] = "negative-sampling"  # how words are told apart from noise
    window: int = 5  # words on each side at most; how many is drawn for every word
    negatives: int = 5  # noise words that each pair counts
    noise: int = 64  # words that all pairs of a batch share as noise, each counting in part; larger batches need more
    sample: float = 1e-3  # words with a larger share of the text are thinned out; 0 = none are
    vocabulary: int = 10_000  # words at most, the most frequent ones; 0 = all
    least: int = 5  # times that a word occurs, or it is left out
    words: int = 0  # of the text that are read; 0 = all
    text: str = ""  # a file of your own, in place of the IMDB reviews
    shown: tuple[str, ...] = (
        "good",
        "terrible",
        "film",
        "actor",
        "funny",
        "french",
        "walked",
        "two",
    )  # with neighbours


_OPTIONS: dict[str, type] = {"penn": LanguageOptions, "shakespeare": LanguageOptions}
_OPTIONS |= {"word2vec": Word2VecOptions}
_OPTIONS |= {"dates": TranslateOptions, "treebank": ParseOptions}
_OPTIONS |= {"babi": StoryOptions}
_OPTIONS |= {"pos": TaggingOptions, "chunks": TaggingOptions, "imdb": ReviewOptions}


def options_of(task: str) -> type:
    """The class of a task's own settings; a text file is a language task, and one bAbI task like all twenty."""
    if task.endswith(".txt"):
        return LanguageOptions
    return _OPTIONS.get("babi" if task.startswith("babi-") else task, NoOptions)
