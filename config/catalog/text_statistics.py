"""Statistics of a text: a handler for the runtime python, which keeps this module loaded between runs."""

import re
from collections import Counter

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
SENTENCE = re.compile(r"[.!?…]+(?:\s|$)")


def handler(input: dict, context) -> dict:
    text = input["text"]
    words = []
    lines = text.splitlines()
    step = max(1, len(lines) // 10)
    for number, line in enumerate(lines, 1):
        words += (word.lower() for word in WORD.findall(line))
        if number % step == 0:
            context.progress(number / len(lines), f"{number} of {len(lines)} lines")
    print(f"found {len(words)} words")

    # By how often they stand there, then by the alphabet, so that the same text has the same answer.
    ranked = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))
    return {
        "characters": len(text),
        "lines": len(lines),
        "sentences": len(SENTENCE.findall(text)),
        "words": len(words),
        "distinct_words": len(ranked),
        "mean_word_length": round(sum(map(len, words)) / len(words), 2) if words else 0,
        "most_frequent": [{"word": word, "count": count} for word, count in ranked[: input["top"]]],
    }
