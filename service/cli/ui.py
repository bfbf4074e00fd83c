"""``caddie ui``: MLflow's pages on the runs."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated

import typer

from service.cli.context import Commands, MakeCommands
from service.errors import CaddieError


def add_ui(app: typer.Typer, make: MakeCommands) -> None:
    """Add the command of this module."""

    @app.command()
    def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65_535)] = 5000) -> None:
        """Open MLflow's pages on the runs; Ctrl-C ends it."""
        _serve(make(), port)


def _serve(commands: Commands, port: int) -> None:
    """MLflow's own server, in this process's place."""
    _check_free(port)
    settings = commands.wiring.settings
    settings.home.mkdir(parents=True, exist_ok=True)
    commands.err.print(f"MLflow on http://127.0.0.1:{port} (store: {settings.mlflow_uri}); Ctrl-C ends it")
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", settings.mlflow_uri, "--default-artifact-root"]
    os.execvpe(command[0], [*command, settings.mlflow_artifacts.as_uri()], {**os.environ, **quiet})


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CaddieError(f"port {port} is in use ({error.strerror}); choose another with --port") from error
