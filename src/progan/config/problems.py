"""What is wrong with a configuration, in words: the option, the value, and what is allowed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from progan.config.schema import in_words, option_schema
from progan.config.tree import Options
from progan.errors import shown, suggest

OTHER_NAMES = {
    "acgan": "ac_gan",
    "aux": "ac_gan",
    "bf16": "bfloat16",
    "brightness": "color",
    "colour": "color",
    "fp16": "float16",
    "fp32": "float32",
    "half": "float16",
    "kaiming": "he",
    "lrelu": "leaky_relu",
    "ls": "least_squares",
    "lsgan": "least_squares",
    "mse": "least_squares",
    "non_saturating": "logistic",
    "nonsaturating": "logistic",
    "nsgan": "logistic",
    "r3gan": "relativistic",
    "rpgan": "relativistic",
    "swish": "silu",
    "wgan_gp": "wgan",
}
"""What others call a value, in lower case with underscores -> what it is called here."""

PLACES = (
    "loss.adversarial",
    "track.to",
    "model.generator_class",
    "model.discriminator_class",
    "monitor.metrics",
    "augment.policy",
)
"""Options that choose parts, of which there may be some of one's own."""

MAX_PROBLEMS = 30
"""Problems that are explained at once."""

NOT_A_BRANCH = ("model_type", "model_attributes_type", "dict_type")
"""What pydantic calls something else than a mapping where a branch belongs."""


def explain(error: ValidationError, model: type[BaseModel] = Options) -> str:
    """Turn a validation error into one line a problem: where, what, and what is allowed.

    Args:
        error: What pydantic found.
        model: The model it found it in, for the options' names and what they may be.
    """
    # The input is not copied, and of many problems the first are explained: to find near names takes time.
    problems = error.errors(include_url=False)
    lines = [_line(dict(problem), model) for problem in problems[:MAX_PROBLEMS]]
    more = len(problems) - len(lines)
    return "\n".join([*dict.fromkeys(lines), *([f"... and {more:,} problems more"] if more else [])])


def _line(problem: dict[str, Any], model: type[BaseModel]) -> str:
    """Say one problem."""
    branch, place, rest = _follow(problem["loc"], model)
    where = ".".join(place)
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        return f"unknown option {where!r}{suggest(key, branch.model_fields, place[:-1])}"
    if problem["type"] == "value_error":
        return _placed(problem["msg"].removeprefix("Value error, "), place, branch)
    given = shown(problem["input"])
    name = place[-1] if place else ""
    if name in branch.model_fields:
        index = f"[{rest[0]}]" if rest and rest[0] else ""
        schema = option_schema(branch, name)
        own = ", or one that --plugin FILE defines" if where in PLACES else ""
        return (
            f"{where}{index}: {given} is not allowed; expected {in_words(schema)}{own}"
            f"{_nearest(problem, schema)}"
        )
    wanted = "expected a mapping of options" if problem["type"] in NOT_A_BRANCH else problem["msg"]
    return f"{where or 'a configuration'}: {wanted} (given: {given})"


def _follow(
    location: tuple[int | str, ...], model: type[BaseModel]
) -> tuple[type[BaseModel], list[str], tuple[int | str, ...]]:
    """Follow a location: the branch it ends in, the names on the way, and the list indices behind them.

    A name that is no option of the branch is still on the way; one that is a branch is entered.
    """
    branch, place = model, list[str]()
    for depth, part in enumerate(location):
        field = branch.model_fields.get(str(part))
        if isinstance(part, int):
            return branch, place, location[depth:]
        place.append(part)
        if field is None:
            return branch, place, location[depth + 1 :]
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            branch = field.annotation
    return branch, place, ()


def _placed(message: str, place: list[str], branch: type[BaseModel]) -> str:
    """Begin a validator's message with the whole name of its option, of which it may name a part itself."""
    for start in range(len(place)):
        if message.startswith(".".join(place[start:])):
            return ".".join([*place[:start], message])
    of_branch = not place or place[-1] not in branch.model_fields
    if of_branch and message.split(" ")[0] in branch.model_fields:
        return ".".join([*place, message])
    return f"{'.'.join(place)}: {message}" if place else message


def _nearest(problem: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return '; did you mean ...?' for a word that is near one of those allowed."""
    if problem["type"] != "literal_error" or not isinstance(problem["input"], str):
        return ""
    allowed = _words(schema)
    word = problem["input"].lower().replace("-", "_")
    known = OTHER_NAMES.get(word, word)
    if known in allowed:
        return f"; did you mean {known!r}?"
    return suggest(word, allowed).removesuffix(".")


def _words(schema: dict[str, Any]) -> list[str]:
    """Return the words that a schema allows, at any depth."""
    inner = [*schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]
    return [*schema.get("enum", []), *(word for form in inner for word in _words(form))]
