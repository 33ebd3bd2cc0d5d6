"""How does a shell learn what comes after ``perpetuo``? By click's own scripts."""

import rich_click as click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_PERPETUO_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """
    Print the script that completes `perpetuo` in SHELL.

    bash, in ~/.bashrc: eval "$(perpetuo completion bash)"

    zsh, in ~/.zshrc after compinit: eval "$(perpetuo completion zsh)"

    fish: perpetuo completion fish > ~/.config/fish/completions/perpetuo.fish
    """
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    click.echo(made(context.find_root().command, {}, "perpetuo", VARIABLE).source())
