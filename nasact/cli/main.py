"""`nasact`: the group of commands. An error is one line on stderr and a non-zero exit code."""

from __future__ import annotations

import errno
import sys
from typing import NoReturn

import click

from nasact.cli.check import check
from nasact.cli.export import export
from nasact.cli.listing import list_group
from nasact.cli.search import search
from nasact.cli.show import show
from nasact.cli.ui import ui
from nasact.errors import NasactError
from nasact.version import __version__

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nasact")
def cli() -> None:
    """Decide which activation function goes where in a neural network.

    Start with `nasact search digits`: real data, nothing to download, a few minutes.
    """


for _command in (search, show, export, ui, check, list_group):
    cli.add_command(_command)


def main() -> NoReturn:
    """Run the command line and exit.

    Exit codes: 0; 1 (no result to show, or a closed pipe); 2 (bad input, or a failure of the environment); 3 (training
    diverged); 130 (Ctrl-C).
    """
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except NasactError as error:
        click.echo(f"nasact: {error}", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("nasact: interrupted; run the same command again to continue", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of stdout has closed the pipe: Python must not report that at exit
        code = 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        click.echo(f"nasact: {error.filename or 'a file'} cannot be written: {error.strerror}", err=True)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
