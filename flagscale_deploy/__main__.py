"""`python -m flagscale_deploy`."""

from flagscale_deploy.cli import main

if __name__ == "__main__":
    main()
