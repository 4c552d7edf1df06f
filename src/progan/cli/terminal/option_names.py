"""What options are called elsewhere, and what is meant by one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, get_args, get_origin

from progan.config import Options
from progan.errors import ConfigError

if TYPE_CHECKING:
    from cyclopts import App, ArgumentCollection

MEANT: dict[str, tuple[str, ...]] = {
    "aug ada": ("--augment.adaptive",),
    "augment augmentations augpipe diffaugment": ("--augment.policy",),
    "batch-size batchsize bs minibatch": ("--batch", "--batch-size"),
    "batch-gpu micro-batch-size grad-accum gradient-accumulation-steps": ("--run.micro-batch",),
    "betas beta": ("--optimizer.beta1",),
    "cfg preset": ("--recipe",),
    "checkpoint ckpt continue restore resume-from": ("--resume",),
    "classes cond conditional class-labels num-classes": ("--labels", "--label"),
    "class class-idx y": ("--label",),
    "count num num-samples num-imgs number samples": ("--n", "--num-images"),
    "cpu cuda gpu-id": ("--device",),
    "cores jobs num-workers nproc": ("--workers", "--run.threads"),
    "dims dim height image-size img-size imsize size width": ("--resolution",),
    "ema moving-average": ("--optimizer.ema-half-life-kimg",),
    "epoch epochs n-epochs num-epochs": ("--schedule.stabilise-epochs",),
    "fp16 bf16 amp mixed-precision half dtype tf32": ("--precision",),
    "flip hflip horizontal-flip": ("--mirror",),
    "gamma r1 r1-gamma": ("--loss.r1-gamma",),
    "gan-loss adversarial": ("--loss.adversarial",),
    "gp gradient-penalty lambda lambda-gp": ("--loss.gp-lambda",),
    "gpu gpus ngpu ngpus num-gpus world-size processes": ("--gpus", "--device"),
    "hours duration budget minutes": ("--time",),
    "images iterations iters max-steps niter steps total-steps": ("--kimg", "--num-steps"),
    "latent-dim nz z-dim zdim": ("--model.generator.latent-size",),
    "learning-rate": ("--lr",),
    "metric": ("--metrics", "--monitor.metrics"),
    "finetune fine-tune pretrained transfer": ("--init",),
    "name out outdir output out-dir output-dir save-dir result-dir results-dir logdir exp": (
        "--out",
        "--outdir",
    ),
    "random-seed manual-seed": ("--seed", "--seeds"),
    "snap save-every save-interval": ("--run.checkpoint-kimg",),
    "plan check": ("--dry-run",),
    "psi truncation truncation-psi": ("--trunc",),
    "tick log-interval log-every": ("--run.log-kimg",),
}
"""Names, in other programs of the field -> options that mean it, the nearest that a command has first."""

WORDS = {"dataset", "data-dir", "dataroot", "data-path", "source", "input", "network", "run", "path"}
"""What other programs have an option for, and is a plain word here."""


def explain_unknown(keyword: str, options: Iterable[str], command: str) -> str:
    """Return the message of an option that a command does not have, with the one that is meant.

    Args:
        keyword: As it was given, such as `--batch-size=8`.
        options: Names of all that the command has.
        command: Its name, such as `config show`.
    """
    name, known = keyword.partition("=")[0], list(dict.fromkeys(options))
    meant = _meant(name.lstrip("-").lower().replace("_", "-"), known)
    plain = name.lstrip("-") in WORDS
    more = "all" if any(option.startswith("--schedule.") for option in known) else ""
    if plain:
        hint = f"what it stands for is a plain word: progan {command} {name.lstrip('-').upper()}"
    elif meant:
        hint = f"did you mean {meant}?"
    else:
        hint = f"options: progan {command} --help {more}".rstrip()
    return f"unknown option {name}; {hint}"


def explain_branch(name: str, command: str) -> str:
    """Return the message of a branch of options that was given a value, as in `--loss wgan`.

    Args:
        name: Of the branch.
        command: Its name, such as `config show`.
    """
    first = {"loss": "adversarial", "augment": "policy"}.get(name) or next(
        iter(Options.model_fields[name].annotation.model_fields)  # type: ignore[union-attr]
    )
    pictures = f"; pictures are a plain word: progan {command} PICTURES" if name == "data" else ""
    return (
        f"--{name} stands for many options, such as --{name}.{first.replace('_', '-')}; "
        f"all of them: progan {command} --help {name}{pictures}"
    )


def _meant(word: str, known: list[str]) -> str | None:
    """Return the option that is meant by a word: by its meaning, else by its letters."""
    by_meaning = [option for names, options in MEANT.items() if word in names.split() for option in options]
    by_end = [option for option in known if option.rpartition(".")[2].lstrip("-") == word]
    if found := [option for option in by_meaning if option in known] or by_end:
        return found[0]
    ends = {option.rpartition(".")[2].lstrip("-"): option for option in reversed(known)}
    whole = {option.lstrip("-"): option for option in known} | ends
    near = difflib.get_close_matches(word, whole, n=1, cutoff=0.7)
    return whole[near[0]] if near else None


def split_commas(_app: App, _commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Let commas stand between the values of an option that takes several: `--metrics swd,fid`."""
    for argument in arguments:
        files = "--plugin" in argument.names
        if argument.field_info.is_positional or files or not _lists_words(argument.hint):
            continue
        if any("," in token.value for token in argument.tokens):
            parts = [(each, part) for each in argument.tokens for part in each.value.split(",") if part]
            argument.tokens[:] = [each.evolve(value=part, index=i) for i, (each, part) in enumerate(parts)]


def join_flags(app: App, words: Sequence[str]) -> list[str]:
    """Let a flag be followed by its value, as files of options and docs write it: `--data.mirror false`.

    Args:
        app: The command line.
        words: Of a command.

    Returns:
        The words, such flags with their value in one: `--data.mirror=false`.
    """
    pairs = [i for i, word in enumerate(words[1:]) if word.lower() in TRUTH and words[i].startswith("--")]
    end = list(words).index("--") if "--" in words else len(words)
    pairs = [i for i in pairs if i + 1 < end and "=" not in words[i]]
    if not pairs:
        return list(words)
    command = app.parse_commands(list(words[: pairs[0]]))[1][-1]
    arguments = command.assemble_argument_collection()
    flags = {name for each in arguments if each.hint in (bool, bool | None) for name in each.names}
    joined = list(words)
    for i in reversed(pairs):
        if words[i].replace("_", "-") in flags:
            joined[i : i + 2] = [f"{words[i]}={TRUTH[words[i + 1].lower()]}"]
    return joined


TRUTH = {"true": "true", "false": "false", "yes": "true", "no": "false", "on": "true", "off": "false"}
"""What may follow a flag, and what it means."""


def _lists_words(hint: object) -> bool:
    """Whether a type is a list of numbers or words; a path may have a comma in its name."""
    parts = get_args(hint)
    if get_origin(hint) is not tuple:
        return any(_lists_words(part) for part in parts)
    return Ellipsis in parts and "Path" not in str(parts)


def check_topic(topic: str, branches: Iterable[str], found: Callable[[str], bool]) -> None:
    """Refuse what is no topic of help.

    Raises:
        ConfigError: if nothing is called so.
    """
    known = ["all", *branches]
    if topic not in known and not found(topic):
        raise ConfigError(
            f"--help {topic}: no option is called so; give a part of a name, or {', '.join(known)}"
        )
