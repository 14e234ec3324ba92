"""`make dev`: Dagster's UI and daemon on a local warehouse, with the same DAGSTER_HOME that
`meterhouse nightly` writes to.
"""

import os
import sys
from pathlib import Path

from pipelines.cli import prepare_dagster_home
from pipelines.screens import err, out
from pipelines.settings import FILE_NAME, SettingsError, load

ADDRESS, PORT = "127.0.0.1", os.environ.get("PORT", "3000")


def main() -> None:
    """Becomes `dagster dev`; the first argument is the settings file (default: the one here)."""
    config = Path("".join(sys.argv[1:2]) or FILE_NAME).resolve()
    try:
        settings = load(config)
    except SettingsError as error:
        err.print(f"{error} Or run 'make demo' first.")
        sys.exit(1)
    prepare_dagster_home(settings.dagster_home)
    os.environ |= {
        "METERHOUSE_CONFIG": str(config),
        "DAGSTER_HOME": str(settings.dagster_home),
        "PYTHONWARNINGS": "ignore",
    }
    out.print(f"Dagster on {settings.root}: [bold]http://{ADDRESS}:{PORT}[/]  (Ctrl-C ends it)")
    command = Path(sys.executable).with_name("dagster")
    os.execv(
        command, [str(command), "dev", "-m", "pipelines.definitions", "-h", ADDRESS, "-p", PORT]
    )


if __name__ == "__main__":
    main()
