"""The identifiers of a text that may not be Python."""

import io
import tokenize


def words(text: str) -> set[str]:
    """Everything in a text that could be a name.

    >>> sorted(words("!echo {model.name} > 'log'"))
    ['echo', 'log', 'model', 'name']
    """
    spaced = "".join(c if c.isidentifier() or c.isdigit() else " " for c in text)
    return {word for word in spaced.split() if word.isidentifier()}


def comments_and_strings(python: str) -> list[tuple[int, str]]:
    """Line and text of each comment and string, as far as the text can be read."""
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(python).readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                found.append((token.start[0], token.string))
    except (tokenize.TokenError, SyntaxError):
        pass
    return found
