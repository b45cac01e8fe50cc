"""The program as a whole: light to start, words on stderr, data on stdout, an exit status for each kind of error."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

from keystrand.cli import exits, program
from keystrand.cli.verbs import VerbGroup
from keystrand.core import errors

HEAVY = ("numpy", "numba", "starlette", "OpenSSL", "cryptography", "uvicorn", "structlog", "sqlite3", "msgspec")


def _fails_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr(VerbGroup, "get_command", lambda self, ctx, name: command)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom keystrand.cli.program import run\nassert run(['--help']) == 0\n"
        f"print(sorted(set({HEAVY!r}) & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "conformance" in done.stdout


def test_help_is_quick() -> None:
    """Beside a program of click's own, in turns, by the processor time of each."""

    def used_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def took_s(*arguments: str) -> float:
        before_s = used_s()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        return used_s() - before_s

    turns = [(took_s("-c", "import click"), took_s("-m", "keystrand", "--help")) for _ in range(7)]
    bare_s, help_s = (min(column) for column in zip(*turns, strict=True))
    assert help_s < 4 * bare_s, turns  # about twice


def test_the_list_of_verbs_says_what_each_verb_says() -> None:
    context = click.Context(program.root)
    files = {path.stem for path in Path(program.__file__).parent.glob("*.py")}
    for name, words in program.VERBS.items():
        assert name in files
        command = program.root.get_command(context, name)
        assert command is not None
        assert (command.help or "").strip(), name
        assert words.endswith("."), name


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.BadRequest("x"), exits.REFUSED),
        (errors.UnknownKey("x"), exits.REFUSED),
        (errors.NotPermitted("x"), exits.REFUSED),
        (errors.KeyUnavailable("x"), exits.UNAVAILABLE),
        (errors.StoreUnavailable("x"), exits.UNAVAILABLE),
        (errors.ConfigError("x", path="site.toml", line=3), exits.CONFIG),
        (errors.Tampered("x"), exits.TAMPERED),
        (FileNotFoundError(2, "No such file", "thing"), exits.REFUSED),
        (click.UsageError("x"), exits.USAGE),
        (KeyboardInterrupt(), exits.INTERRUPTED),
        (click.Abort(), exits.INTERRUPTED),
    ],
)
def test_each_error_has_its_status_and_is_told_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, status: int
) -> None:
    _fails_with(monkeypatch, error)
    assert program.run(["anything"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert status in exits.MEANINGS
    if status != exits.INTERRUPTED:
        assert err.startswith("keystrand: error: ")
        assert "Traceback" not in err


def test_a_hint_is_told_beside_the_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _fails_with(monkeypatch, errors.NotPermitted("no", hint="ask"))
    program.run(["anything"])
    assert capsys.readouterr().err == "keystrand: error: no\nkeystrand: hint: ask\n"


def test_our_own_bug_is_not_dressed_up_as_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    _fails_with(monkeypatch, RuntimeError("bug"))
    with pytest.raises(RuntimeError):
        program.run(["anything"])


def test_every_error_of_the_tree_has_a_status() -> None:
    def below(kind: type[errors.KeystrandError]) -> set[type[errors.KeystrandError]]:
        return {kind}.union(*(below(inner) for inner in kind.__subclasses__()))

    for kind in below(errors.KeystrandError):
        error = kind.__new__(kind)  # some rooms' own kinds take more words than one
        assert exits.exit_of(error) in exits.MEANINGS


@pytest.mark.parametrize("words", [["nonsense"], ["key", "get", "--sae", "x"], ["site", "init", "x"], ["--nonsense"]])
def test_a_wrong_command_line_is_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert program.run(words) == exits.USAGE
    assert capsys.readouterr().err.startswith("keystrand: error: ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("keystrand 0.")
