"""Conditions of `rules: if`: variables, texts, ==, !=, =~, !~, && and ||, with parentheses.

Source: gitlab-org/gitlab lib/gitlab/ci/pipeline/expression/.
"""

import re
from collections.abc import Mapping
from typing import Any

TOKEN = re.compile(
    r"""\s*(?:(?P<operator>==|!=|=~|!~|&&|\|\||\(|\))|\$\{?(?P<variable>\w+)\}?|(?P<null>null\b)
    |"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<pattern>/(?:[^/\\]|\\.)+/[i]*))""",
    re.VERBOSE,
)


class ExpressionError(Exception):
    """The condition is none."""


def is_valid(text: object) -> bool:
    try:
        evaluate(str(text), {})
    except ExpressionError:
        return False
    return isinstance(text, str)


def evaluate(text: str, variables: Mapping[str, str]) -> bool:
    """Raises ExpressionError."""
    tokens, position = [], 0
    text = text.strip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(text)
        kind = match.lastgroup or ""
        tokens.append((kind, match[kind]))
        position = match.end()
    parser = _Parser(tokens, variables)
    value = parser.either()
    if parser.tokens:
        raise ExpressionError(text)
    return _truth(value)


def _truth(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value != "")


class _Parser:
    """By descent; takes the tokens away from the front."""

    def __init__(self, tokens: list[tuple[str, str]], variables: Mapping[str, str]) -> None:
        self.tokens, self.variables = tokens, variables

    def either(self) -> Any:
        value = self.both()
        while self._take("||"):
            other = self.both()
            value = _truth(value) or _truth(other)
        return value

    def both(self) -> Any:
        value = self.comparison()
        while self._take("&&"):
            other = self.comparison()
            value = _truth(value) and _truth(other)
        return value

    def comparison(self) -> Any:
        left = self.operand()
        for operator in ("==", "!=", "=~", "!~"):
            if self._take(operator):
                right = self.operand()
                if operator in ("==", "!="):
                    return (left == right) == (operator == "==")
                return _matches(left, right) == (operator == "=~")
        return left

    def operand(self) -> Any:
        if self._take("("):
            value = self.either()
            if not self._take(")"):
                raise ExpressionError("no closing parenthesis")
            return value
        if not self.tokens or self.tokens[0][0] == "operator":
            raise ExpressionError("an operand is missing")
        kind, text = self.tokens.pop(0)
        if kind == "variable":
            return self.variables.get(text)
        return None if kind == "null" else text

    def _take(self, operator: str) -> bool:
        if self.tokens and self.tokens[0] == ("operator", operator):
            self.tokens.pop(0)
            return True
        return False


def _matches(text: Any, pattern: Any) -> bool:
    if not isinstance(pattern, str) or not pattern.startswith("/"):
        return False
    body, _, flags = pattern[1:].rpartition("/")
    return re.search(body, text or "", re.IGNORECASE if "i" in flags else 0) is not None
