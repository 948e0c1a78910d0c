"""Text of strangers on a terminal: it is shown, and never obeyed."""


def printable(text: str) -> str:
    """The text with all that a terminal might take for a command (escape sequences, line breaks, overwriting) or
    could not write written as Python does, such as `\\x1b`; tabs stay."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one == "\t" else one.encode("unicode_escape").decode("ascii") for one in text
    )
