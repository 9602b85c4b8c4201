"""The command line: `python -m tools COMMAND`; a command is imported when it is called."""

import importlib

import click

COMMANDS = {
    "run": "tools.commands.run:run",
    "smoke": "tools.commands.run:smoke",
    "lane": "tools.commands.lane:lane",
    "validate": "tools.commands.validate:validate",
    "migrate": "tools.commands.migrate:migrate",
    "sync": "tools.commands.sync:sync",
    "import": "tools.commands.merge:merge",
    "stats": "tools.commands.stats:stats",
    "fuzz": "tools.commands.fuzz:fuzz",
}


class LazyGroup(click.Group):
    """A group whose commands are named in COMMANDS and imported on use."""

    def list_commands(self, context: click.Context) -> list[str]:
        """All commands, in the order in which a reader meets them."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name not in COMMANDS:
            return None
        module, _, function = COMMANDS[name].partition(":")
        return getattr(importlib.import_module(module), function)


@click.group(cls=LazyGroup)
def main() -> None:
    """Keep notebooks sound, and run them."""


if __name__ == "__main__":
    main(prog_name="python -m tools")
