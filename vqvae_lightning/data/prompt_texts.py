"""What the prompts say, as far as their names tell.

The rule: of `vm-from-extension`, the program `vm` is dropped, and a blank takes the place of every
dash and underscore: "from extension". Folders are dropped too. Names that are no words, such as
`digits/h-3` and `letters/ascii59`, have their words here. A name is often shorter than what is
spoken: `conf-getpin` says "please enter the conference pin number". So a text is a name for what is
heard, and not a transcript.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# The first word of a name, where it is that of a program of the exchange.
PROGRAMS = frozenset(
    _words(
        "agent astcc auth conf confbridge demo dir pbx pm priv privacy queue screen spy ss tt vm"
    )
)
# Tones and noises. The folder `silence` has nothing to say either.
NOT_SPOKEN = frozenset(
    _words(
        "ascending-2tone beep beeperr confbridge-join confbridge-leave descending-2tone tt-monkeys"
    )
)
ONES = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
)
TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
ORDINALS = _words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth"
    " fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
)
TENTHS = _words("twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth ninetieth")
LARGE = ("hundred", "thousand", "million", "billion")
DAYS = _words("sunday monday tuesday wednesday thursday friday saturday")
MONTHS = _words(
    "january february march april may june july august september october november december"
)
SIGNS = {
    34: "quote", 36: "dollar sign", 37: "percent", 38: "ampersand", 39: "tick",
    40: "open parenthesis", 41: "close parenthesis", 42: "star", 44: "comma", 58: "colon",
    59: "semicolon", 60: "less than", 62: "greater than", 63: "question mark", 91: "left bracket",
    92: "backslash", 93: "right bracket", 94: "caret", 95: "underscore", 96: "backtick",
    123: "left brace", 124: "pipe", 125: "right brace", 126: "tilde",
}  # fmt: skip
SPELLING = _words(
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar"
    " papa quebec romeo sierra tango uniform victor whiskey xray yankee zulu"
)

# The names that are no words → what is spoken.
ODD = {
    **{f"digits/{number}": word for number, word in enumerate(ONES)},
    **{f"digits/{number}0": word for number, word in enumerate(TENS, start=2)},
    **{f"digits/h-{number}": word for number, word in enumerate(ORDINALS, start=1)},
    **{f"digits/h-{number}0": word for number, word in enumerate(TENTHS, start=2)},
    **{f"digits/h-{word}": f"{word}th" for word in LARGE},
    **{f"digits/day-{number}": word for number, word in enumerate(DAYS)},
    **{f"digits/mon-{number}": word for number, word in enumerate(MONTHS)},
    **{f"letters/ascii{number}": words for number, words in SIGNS.items()},
    **{f"phonetic/{word[0]}_p": word for word in SPELLING},
    "digits/oclock": "o clock",
    "letters/exclaimation-point": "exclamation point",
    "phonetic/9_p": "niner",
    "spy-iax2": "iax",
}


def is_spoken(name: str) -> bool:
    """Whether anything is said in the clip of a name."""
    return not name.startswith("silence/") and name not in NOT_SPOKEN


def text_of(name: str) -> str:
    """What the clip of a name, such as `letters/a` or `vm-goodbye`, says: words in lower case."""
    if name in ODD:
        return ODD[name]
    words = name.rpartition("/")[2].replace("_", "-").lower().split("-")
    return " ".join(words[1:] if words[0] in PROGRAMS and len(words) > 1 else words)
