"""Write down what an expression means, in a form that outlives every library.

Formatting, case, parentheses, synonyms and column spelling are gone; order of
operands stays.  The form may split one meaning in two, and never joins two.
"""

from collections.abc import Mapping

from featreg.expressions.tree import Call, Case, Cast, Column, Literal, Node, Typed

# The rules that give a checked tree its value; a mended rule is a new number, and so new definition ids.
LANGUAGE_SEMANTICS = 1


def meaning(typed: Typed, names: Mapping[str, str] | None = None) -> object:
    """Nested lists of text for canonical JSON.

    names: what a column is called in the result, such as the id of a derived feature's input; a name that is not there stays.

    >>> from featreg.expressions import analyze
    >>> from featreg.vocabulary import BIGINT
    >>> meaning(analyze("N  != (2)", {"n": BIGINT}))
    ['<>', ['column', 'n', 'BIGINT'], ['literal', '2', 'BIGINT']]
    """
    return _form(typed.node, names or {})


def _form(node: Node, names: Mapping[str, str]) -> list:
    match node:
        case Column(name=name):
            return ["column", names.get(name, name), str(node.type)]
        case Literal():
            return ["literal", _literal_text(node), str(node.type)]
        case Cast(value=value):
            return ["cast", _form(value, names), str(node.type)]
        case Case(branches=branches, otherwise=otherwise):
            return ["case", [[_form(condition, names), _form(value, names)] for condition, value in branches], _form(otherwise, names)]
        case Call(operator="and" | "or" as operator, arguments=arguments):
            return [operator, *(_form(part, names) for argument in arguments for part in _flat(operator, argument))]
        case Call(operator=operator, arguments=arguments):
            return [operator, *(_form(argument, names) for argument in arguments)]


def _flat(operator: str, node: Node) -> tuple[Node, ...]:
    """(a AND b) AND c is a AND b AND c."""
    if isinstance(node, Call) and node.operator == operator:
        return tuple(part for argument in node.arguments for part in _flat(operator, argument))
    return (node,)


def _literal_text(literal: Literal) -> str | None:
    match literal.value:
        case None | str():
            return literal.value
        case bool():
            return "true" if literal.value else "false"
        case float():
            return literal.value.hex()
    return str(literal.value)
