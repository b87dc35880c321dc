"""Extension of griffe: a field's comment, or the meaning of a setting, is its text on an API page.

The package documents fields by a comment beside or above them, and settings by the second argument
of `setting(default, meaning)`; both would be lost without this.
"""

import ast
import io
import tokenize
from typing import Any

import griffe


class FieldTexts(griffe.Extension):
    """Gives attributes without a docstring the text that the source has for them."""

    def on_attribute_instance(
        self, *, node: Any, attr: griffe.Attribute, agent: Any, **kwargs: Any
    ) -> None:
        """Called by griffe for each attribute that it finds."""
        if attr.docstring or not isinstance(node, ast.AnnAssign | ast.Assign):
            return
        text = meaning(node.value) or comment(attr)
        if text:
            attr.docstring = griffe.Docstring(text, parent=attr)
        if isinstance(attr.value, griffe.ExprCall) and str(attr.value.function) == "setting":
            attr.value = attr.value.arguments[0]  # the default, which is all that a reader wants


def meaning(value: ast.expr | None) -> str:
    """The meaning of a setting, with its range; "" for another value."""
    if not isinstance(value, ast.Call):
        return ""
    given = {word.arg: word.value for word in value.keywords}
    texts = [a for a in value.args[1:2] if isinstance(a, ast.Constant)]
    if isinstance(metadata := given.get("metadata"), ast.Dict):
        texts = [v for v in metadata.values if isinstance(v, ast.Constant)]
    limits = [
        f"{name.replace('_', ' ')} {ast.unparse(given[name])}"
        for name in ("at_least", "above", "at_most", "below")
        if name in given
    ]
    text = next((str(t.value) for t in texts if isinstance(t.value, str)), "")
    return f"{text} ({', '.join(limits)})" if text and limits else text


def comment(attr: griffe.Attribute) -> str:
    """The comment in the lines of an attribute, or directly above it."""
    lines = attr.lines_collection[attr.filepath]  # type: ignore[index]
    first, last = (attr.lineno or 1) - 1, attr.endlineno or 1
    beside = [c for line in lines[first:last] if (c := comment_of(line))]
    while first > 0 and lines[first - 1].strip().startswith("#"):
        first -= 1
    above = [lines[i].strip().lstrip("# ") for i in range(first, (attr.lineno or 1) - 1)]
    return " ".join(above or beside)


def comment_of(line: str) -> str:
    """The comment at the end of a line; "" without one."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(line.strip()).readline))
    except (tokenize.TokenError, IndentationError):
        return line.partition("  # ")[2]
    found = [token.string for token in tokens if token.type == tokenize.COMMENT]
    text = found[0].lstrip("# ") if found else ""
    return "" if text.startswith(("type:", "fmt:", "noqa")) else text
