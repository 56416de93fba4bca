"""The words that a captioner knows."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

END, UNKNOWN = '<end>', '<unk>'


def words_of(caption: str) -> list[str]:
    """A caption in lower case without punctuation, as words: ``"A dog's ball."`` gives ``['a', "dog's", 'ball']``."""
    return re.findall(r"\w+(?:['’-]\w+)*", caption.lower())


class Vocabulary:
    """Numbers of words: 0 ends a caption, 1 is any word that is not known, and others follow.

    Args:
        words (Sequence[str] | str | Path): The words from number 2 on, or a file that :meth:`save` wrote.
        size (int, optional): How many numbers there are at most; words beyond are not known. Defaults to all.

    Raises:
        FileNotFoundError: If there is no such file; the message says how to make it.
        ValueError: If there are no words, or one stands twice.
    """

    def __init__(self, words: Sequence[str] | str | Path, size: int | None = None) -> None:
        if isinstance(words, str | Path):
            path = Path(words)
            if not path.is_file():
                raise FileNotFoundError(
                    f'There is no vocabulary {path}. Make it from the training captions: '
                    f'python tools/dataset_converters/caption_vocabulary.py CONFIG'
                )
            words = path.read_text('utf-8').split()
        self.words = [END, UNKNOWN, *words][:size]
        self.numbers = {word: number for number, word in enumerate(self.words)}
        if not words or len(self.numbers) < len(self.words):
            twice = [word for word, count in Counter(self.words).items() if count > 1]
            raise ValueError(f'A vocabulary has words, each once; of {len(words)} these stand twice: {twice}.')

    @classmethod
    def of(cls, captions: Iterable[str], min_count: int = 1, max_words: int = 10_000) -> 'Vocabulary':
        """The words of some captions, the most frequent first, words of equal frequency by the alphabet.

        Args:
            captions (Iterable[str]): Captions to train on.
            min_count (int): How often a word must occur. Defaults to 1.
            max_words (int): How many words at most. Defaults to 10,000, as in the authors' code.
        """
        counts = Counter(word for caption in captions for word in words_of(caption))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls([word for word, count in ranked if count >= min_count][:max_words])

    def save(self, path: str | Path) -> None:
        """Write the words, one a line, most frequent first."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(''.join(f'{word}\n' for word in self.words[2:]), 'utf-8')

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str) -> list[int]:
        """Numbers of a caption's words, and 0 at the end."""
        return [self.numbers.get(word, 1) for word in words_of(caption)] + [0]

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Words up to the end of the caption."""
        return [self.words[number] for number in takewhile(bool, numbers)]
