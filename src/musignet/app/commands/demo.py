"""`musignet demo`."""

from __future__ import annotations

import click

from .common import Command, Failure, run_async

__all__ = ["demo"]


@click.command(cls=Command, example="musignet demo --signers 2 --liar bad-partial")
@click.option("--signers", type=click.IntRange(2, 15), default=3, show_default=True, help="How many cosigners.")
@click.option("--inputs", type=click.IntRange(1, 250), default=2, show_default=True, help="How many coins are spent.")
@click.option("--topology", type=click.Choice(["mesh"]), default="mesh", help="Everybody sends to everybody.")
@click.option(
    "--liar",
    type=click.Choice(["bad-partial", "equivocate", "silent"]),
    help="The last cosigner does this; the others name it, and nothing is signed.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else.")
@click.pass_obj
def demo(verbose: bool, signers: int, inputs: int, topology: str, liar: str | None, as_json: bool) -> None:
    """Cosign a transaction: nodes in processes of their own, on a chain of their own.

    Bitcoin Core's own consensus code keeps the chain. Nothing leaves this machine. Needs the extra named demo:
    pip install "musignet[demo]".
    """
    try:
        from ..demo import Demo
    except ModuleNotFoundError as error:
        if error.name != "pbk":
            raise
        raise Failure(
            'the demo needs Bitcoin Core\'s kernel: pip install "musignet[demo]" (Python below 3.14)'
        ) from None
    run_async(Demo(signers, inputs, liar or "", as_json).run(), verbose=verbose)
