"""The `gatehouse` command: which commands there are, and how they end.

0  done
1  a check failed, or something needed is missing or down
2  the input is wrong
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

import click

from app.cli.output import one_line
from app.errors import (
    AlreadyExists,
    ChannelUnavailable,
    ConfigurationError,
    ContactMissing,
    GatehouseError,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    TenantNotFound,
    Unavailable,
)
from app.settings import load

_FAILED: Final = 1
_BAD_INPUT: Final = 2
_INTERRUPTED: Final = 130
# What the caller can put right by typing something else.
_INPUT_ERRORS: Final = (
    InvalidRequest,
    TenantNotFound,
    NotFound,
    AlreadyExists,
    ContactMissing,
    ChannelUnavailable,
    PayloadTooLarge,
)

# Functions that take the settings and are the process from then on.
_PROCESSES: Final = {
    "run": ("app.cli.run:run_everything", "Everything in one: embedded stores if needed, migrations, web, worker."),
    "demo": ("app.cli.demo:demo", "The same on data of its own, with tenants to play with."),
    "web": ("app.cli.web:serve", "Answer HTTP with WEB_WORKERS processes."),
    "worker": ("app.worker:main", "Send what is queued, and clear away what has had its time."),
}
# Commands of their own.
_COMMANDS: Final = {
    "migrate": ("app.cli.migrate:migrate", "Bring the database to the newest schema."),
    "doctor": ("app.cli.doctor:doctor", "Check settings, stores, schema, worker and mail server."),
    "tenant": ("app.cli.tenants:tenant", "Add, change, show, list, import, export, suspend and unlock tenants."),
    "member": ("app.cli.members:member", "Add, change, show, list, import, suspend, export and erase members."),
    "send-test": ("app.cli.send_test:send_test", "Send a test message to a tenant and wait for its outcome."),
    "bounce": ("app.cli.bounce:bounce", "Read a bounce from standard input, for the mailbox that codes are sent from."),
    "admin": ("app.cli.admins:admin", "Add and list the people who look after tenants, and let one in."),
    "api-key": ("app.cli.admins:api_key", "Make, list and revoke keys to the admin API."),
    "refusals": ("app.cli.refusals:refusals", "List what was refused before anybody was known."),
    "keys": ("app.cli.keys:keys", "Change the secret, and see which old one is still needed."),
    "audit": ("app.cli.audit:audit", "Check, export and prune the tamper-evident audit log."),
}


class _Commands(click.Group):
    """Imports a command's module only when it is used: `--help` and a typo answer at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*_PROCESSES, *_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name in _PROCESSES:
            target, sentence = _PROCESSES[cmd_name]
            return click.Command(cmd_name, callback=lambda: _named(target)(load()), help=sentence)
        if cmd_name in _COMMANDS:
            command: click.Command = _named(_COMMANDS[cmd_name][0])
            return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in (_PROCESSES | _COMMANDS).items()])


def _named(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        print(f"gatehouse {version('gatehouse')}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def cli() -> None:
    """Gatehouse: passwordless sign-in for many tenants.

    Settings come from the environment and from .env; see .env.example.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command; answers with its exit code. What went wrong is told in one line on stderr."""
    try:
        outcome: Any = cli.main(list(args) if args is not None else None, "gatehouse", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.ctx.get_help(), file=sys.stderr)
        return _BAD_INPUT
    except click.ClickException as error:
        return _tell(error.format_message(), _BAD_INPUT)
    except click.Abort:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Nothing more is to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except ConfigurationError as error:
        # One line a fault: they are told all at once.
        print(f"gatehouse: error: {error.detail}", file=sys.stderr)
        return _FAILED
    except _INPUT_ERRORS as error:
        return _tell(_input_fault(error), _BAD_INPUT)
    except Unavailable as error:
        reason = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) else ""
        return _tell(f"The database can't be reached, or doesn't answer in time{reason}.", _FAILED)
    except GatehouseError as error:
        return _tell(error.detail, _FAILED)
    return outcome if isinstance(outcome, int) else 0


def _input_fault(error: GatehouseError) -> str:
    """Every fault with the name of its field."""
    if not isinstance(error, InvalidRequest) or not error.errors:
        return error.detail
    return "; ".join(
        f"{fault.pointer.strip('/').replace('/', '.')}: {fault.detail.removesuffix('.')}" for fault in error.errors
    )


def _tell(sentence: str, status: int) -> int:
    print(f"gatehouse: error: {one_line(sentence)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
