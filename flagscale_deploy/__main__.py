"""The console script, also `python -m flagscale_deploy`."""

import os
import signal


def main() -> None:
    """Run the command line; until a command begins, Ctrl-C ends it at once with status 130.

    What is imported until then takes a while, and KeyboardInterrupt could be raised anywhere in it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as by `nohup` or `&`
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from flagscale_deploy.cli import main as run

    run()


if __name__ == "__main__":
    main()
